"""The rest of the checks of modern_http.py: subscriptions, questions, and what the proxy keeps of calls that wait for answers."""

import pathlib
import tempfile
import time

from by_hand import (
    ASKABLE,
    BRIDGED,
    LACKING,
    WORKDIR,
    at_once,
    bridged,
    check,
    echo,
    equal,
    fails,
    impatient,
    peer,
    result,
    text,
    until,
)
from http_peer import META, call, request

# Subscriptions.


def listen(id, **filter):
    return peer.post(request("subscriptions/listen", {"notifications": filter}, id=id))


def ids(messages):
    return [message["params"]["_meta"][META + "subscriptionId"] for message in messages]


@check
def listen_acknowledges():
    uri = "test://template/raw/data"
    for id in 77, "77", "a b":
        with listen(id, toolsListChanged=True, promptsListChanged=False, resourceSubscriptions=[uri]) as reply:
            equal((reply.status, reply.type), (200, "text/event-stream"))
            stream = reply.messages()
            first = next(stream)
            equal(first["method"], "notifications/subscriptions/acknowledged")
            equal(first["params"]["notifications"], {"toolsListChanged": True, "resourceSubscriptions": [uri]})
            equal((ids([first]), type(ids([first])[0])), ([id], type(id)))
            # Not asked for, so the next that comes is something else.
            text(call("announce", {"what": "prompts"}))
            text(call("touch", {"uri": "test://template/other/data"}))
            text(call("touch", {"uri": uri}))
            second = next(stream)
            equal((second["method"], second["params"]["uri"]), ("notifications/resources/updated", uri))
            text(call("announce", {"what": "tools"}))
            third = next(stream)
            equal(third["method"], "notifications/tools/list_changed")
            equal([type(i) for i in ids([second, third])], [type(id)] * 2)
            equal(ids([second, third]), [id] * 2)


@check
def listen_twice_with_one_id():
    uris = [f"test://template/raw-{n}/data" for n in range(2)]
    with listen(5, resourceSubscriptions=uris[:1]) as one, listen(5, resourceSubscriptions=uris[1:]) as two:
        streams = one.messages(), two.messages()
        equal(ids([next(stream) for stream in streams]), [5, 5])
        for uri in uris:
            text(call("touch", {"uri": uri}))
        equal([next(stream)["params"]["uri"] for stream in streams], uris)


@check
def listen_survives_the_end_of_another():
    uri = "test://template/raw-shared/data"
    with listen(1, resourceSubscriptions=[uri]) as one:
        stream = one.messages()
        next(stream)
        with listen(2, resourceSubscriptions=[uri]) as two:
            next(two.messages())
        equal(text(echo()), "x")
        text(call("touch", {"uri": uri}))
        equal(next(stream)["params"]["uri"], uri)


@check
def listen_to_nothing():
    with listen(1) as reply:
        first = next(reply.messages())
        equal((first["method"], first["params"]["notifications"]), ("notifications/subscriptions/acknowledged", {}))


@check
def listen_malformed():
    for wrong in None, 5, [], {"toolsListChanged": "yes"}, {"resourceSubscriptions": "test://x"}:
        body = request("subscriptions/listen", {} if wrong is None else {"notifications": wrong})
        status, answer = peer.ask(body)
        equal((wrong, answer["error"]["code"], answer["id"]), (wrong, -32602, body["id"]))


# Questions.


def answers(asked, **kinds):
    """Answers to all that was asked, by what it is."""
    kinds = {"elicitation/create": {"action": "accept", "content": {"name": "Ada"}}} | kinds
    return {key: kinds[question["method"]] for key, question in asked["inputRequests"].items()}


def back(asked, given=None, **more):
    """What the client sends to come back, beside the original."""
    state = {"requestState": asked["requestState"]} if "requestState" in asked else {}
    return {"inputResponses": answers(asked) if given is None else given, **state, **more}


def ask(tool="ask_user", arguments=None, **more):
    return call(tool, arguments, capabilities=ASKABLE, **more)


def refused(body):
    """The request is answered with an error that says something."""
    status, answer = peer.ask(body)
    if "error" not in answer:
        raise AssertionError(f"got {status} {answer}, want an error")
    return answer["error"]


@check
def a_question():
    asked = result(ask())
    equal(asked["resultType"], "input_required")
    [question] = asked["inputRequests"].values()
    equal(question["method"], "elicitation/create")
    equal((question["params"]["message"], question["params"]["requestedSchema"]["required"]), ("Who are you?", ["name"]))
    # An intermediate result is not to be kept by anybody.
    equal({"ttlMs", "cacheScope"} & asked.keys(), set())
    done = result(ask(**back(asked)))
    equal((done["resultType"], done["content"][0]["text"]), ("complete", 'user: accept {"name":"Ada"}'))


@check
def two_rounds():
    first = result(ask("ask_twice"))
    second = result(ask("ask_twice", **back(first)))
    equal(second["resultType"], "input_required")
    [question] = second["inputRequests"].values()
    equal(question["params"]["message"], "Step 2: which colour?")
    given = {key: {"action": "accept", "content": {"color": "red"}} for key in second["inputRequests"]}
    want = 'action=accept, content={"name":"Ada"}; action=accept, content={"color":"red"}'
    equal(text(ask("ask_twice", **back(second, given))), want)


@check
def several_questions():
    asked = result(ask("ask_all"))
    sampled = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "hello"}}
    # One after the other or all at once, as the server likes.
    for _ in range(3):
        kinds = {"sampling/createMessage": sampled, "roots/list": {"roots": [{"uri": "file:///a"}]}}
        asked = result(ask("ask_all", **back(asked, answers(asked, **kinds))))
        if asked["resultType"] == "complete":
            break
    want = 'model said: hello; user: accept {"name":"Ada"}; roots: file:///a'
    equal(asked["content"][0]["text"], want)


@check
def answers_missing():
    asked = result(ask())
    again = result(ask(**back(asked, given={})))
    equal((again["resultType"], len(again["inputRequests"])), ("input_required", 1))
    equal(text(ask(**back(again))), 'user: accept {"name":"Ada"}')


@check
def answers_that_nobody_asked_for():
    asked = result(ask())
    extra = {"nobody-asked": {"action": "decline"}, **answers(asked)}
    equal(text(ask(**back(asked, extra))), 'user: accept {"name":"Ada"}')


@check
def answers_malformed():
    for wrong in 5, [], "x":
        asked = result(ask())
        status, answer = peer.ask(ask(**back(asked, wrong)))
        equal((wrong, "error" in answer or answer["result"]["resultType"] == "input_required"), (wrong, True))
    asked = result(ask())
    status, answer = peer.ask(ask(**back(asked, {key: 12345 for key in asked["inputRequests"]})))
    equal("error" in answer or answer["result"]["resultType"] == "input_required", True)


@check
def capability_is_lacking():
    for capabilities in {}, {"elicitation": {"form": {}}}:
        body = call("ask_model", {"prompt": "x"}, capabilities=capabilities)
        if BRIDGED:
            # A legacy server knows by itself what it may ask, and says so in its own way.
            status, answer = peer.ask(body)
            equal("error" in answer or answer["result"].get("isError"), True)
        else:
            error = fails(body, 400, LACKING)
            equal(list(error["data"]["requiredCapabilities"]), ["sampling"])
        equal(text(echo()), "x")


# The proxy's own state, and what becomes of calls that wait for an answer.


@bridged
def state_tampered():
    asked = result(ask())
    state = asked["requestState"]
    middle = len(state) // 2
    changed = state[:middle] + ("A" if state[middle] != "A" else "B") + state[middle + 1 :]
    for wrong in changed, state[:-1], state + "-TAMPERED", "", "x", state[::-1]:
        error = refused(ask(**back(asked, requestState=wrong)))
        equal((error["code"], bool(error["message"])), (-32602, True))
    for wrong in 5, None, {}:
        equal(refused(ask(**back(asked, requestState=wrong)))["code"], -32602)
    # None of this has hurt the call.
    equal(text(ask(**back(asked))), 'user: accept {"name":"Ada"}')


@bridged
def state_of_another_call():
    asked = result(ask())
    equal(refused(ask("ask_twice", **back(asked)))["code"], -32602)
    equal(refused(ask(arguments={"other": "argument"}, **back(asked)))["code"], -32602)
    body = request("prompts/get", {"name": "ask_first", **back(asked)}, clientCapabilities=ASKABLE)
    equal(refused(body)["code"], -32602)
    equal(text(ask(**back(asked))), 'user: accept {"name":"Ada"}')


@bridged
def state_replayed():
    asked = result(ask())
    equal(text(ask(**back(asked))), 'user: accept {"name":"Ada"}')
    error = refused(ask(**back(asked)))
    equal((error["code"], bool(error["message"])), (-32602, True))


@bridged
def state_of_an_earlier_round():
    first = result(ask("ask_twice"))
    second = result(ask("ask_twice", **back(first)))
    equal(refused(ask("ask_twice", **back(first)))["code"], -32602)
    given = {key: {"action": "decline"} for key in second["inputRequests"]}
    equal(text(ask("ask_twice", **back(second, given))).endswith("action=decline, content={}"), True)


@bridged
def coming_back_twice_at_once():
    asked = result(ask())
    got = at_once(lambda _: peer.ask(ask(**back(asked)))[1], range(4))
    right = [answer for answer in got if "result" in answer]
    equal([answer["result"]["content"][0]["text"] for answer in right], ['user: accept {"name":"Ada"}'])
    equal({answer["error"]["code"] for answer in got if "error" in answer}, {-32602})


@bridged
def hanging_up_after_coming_back_cancels():
    asked = result(ask("ask_then_wait", {"mark": str(mark := pathlib.Path(tempfile.mktemp(dir=WORKDIR)))}))
    connection = peer.send("POST", ask("ask_then_wait", {"mark": str(mark)}, **back(asked)))
    equal(text(call("later", {"n": 300})), "after 300 ms")
    connection.close()
    until(mark.exists)


def kept():
    """What the proxy remembers of its clients."""
    return peer.status()["sessions"]


@bridged
def nothing_is_left_of_who_came_back():
    # Some of the checks do not come back.
    before = kept()
    asked = [result(ask()) for _ in range(3)]
    equal(kept(), before + 3)
    for each in asked:
        equal(text(ask(**back(each, {key: {"action": "cancel"} for key in each["inputRequests"]}))), "user: cancel {}")
    until(lambda: kept() == before)


@impatient
def nothing_is_left_of_who_never_comes_back():
    mark = pathlib.Path(tempfile.mktemp(dir=WORKDIR))
    asked = result(ask("ask_then_wait", {"mark": str(mark)}))
    equal(kept(), 1)
    until(lambda: kept() == 0)
    # Too late.
    error = refused(ask("ask_then_wait", {"mark": str(mark)}, **back(asked)))
    equal((error["code"], bool(error["message"])), (-32602, True))
    # The server was told, and is there for others.
    equal(text(echo()), "x")
    equal(text(ask(**back(result(ask())))), 'user: accept {"name":"Ada"}')


@impatient
def time_begins_anew_with_each_round():
    first = result(ask("ask_twice"))
    time.sleep(0.6)
    second = result(ask("ask_twice", **back(first)))
    time.sleep(0.6)
    given = {key: {"action": "decline"} for key in second["inputRequests"]}
    equal(text(ask("ask_twice", **back(second, given))).endswith("action=decline, content={}"), True)
