// What cannot be green behind a proxy, each with the reason. An entry that passes is reported, too: then this list is too
// long.

// Server scenarios: suite arguments -> era of the server -> `scenario:check` -> reason.
export const SERVER = {
  '--suite all --spec-version 2026-07-28': {
    legacy: {
      'input-required-result-basic-elicitation:sep-2322-elicitation-incomplete':
        'wants the key "user_name" in `inputRequests`; the question of a legacy server has no key, so the proxy makes one up',
      'input-required-result-ignore-extra-params:sep-2322-ignore-unexpected-params':
        'sends an answer for "user_name" at once, without being asked; a legacy server cannot be told what it has not asked for'
    }
  }
};

// Client scenarios: title of the run -> scenario -> reason.
export const CLIENT = {
  '0.2.0-alpha.12 at 2026-07-28, legacy client': {
    'request-metadata':
      'every request has to be modern; the proxy first hands on the `initialize` of a legacy client, in case the server takes it',
    'http-standard-headers': 'that `initialize` has none of the header fields of the modern revision, because it is none of its requests'
  }
};
