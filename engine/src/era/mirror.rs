//! How a request is mirrored into HTTP header fields (specification 2026-07-28, basic/transports/streamable-http, "Request
//! Metadata" to "Server Validation"; server/tools, "x-mcp-header").
//!
//! Something between client and server may decide by the header fields alone, so they must say what the body says. As a
//! server we check that, as a client we send them. Which arguments of a tool have a field of their own is said in the schema
//! of its input; a [`Catalog`] remembers that.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use memchr::memmem;
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::io::Headers;
use crate::wire::rpc;

const BEFORE: &str = "=?base64?";
const AFTER: &str = "?=";
const ANNOTATION: &str = "x-mcp-header";

/// A value as it may stand in a header field: as it is, or in Base64 between two marks.
pub(crate) fn encode(value: &str) -> Cow<'_, str> {
    // A tab is allowed, but does not pass everywhere.
    let plain = value.bytes().all(|b| matches!(b, b' '..=b'~')) && !value.starts_with(' ') && !value.ends_with(' ');
    if plain && !(value.starts_with(BEFORE) && value.ends_with(AFTER)) {
        return value.into();
    }
    format!("{BEFORE}{}{AFTER}", BASE64_STANDARD.encode(value)).into()
}

/// The value in a header field; `None` if it has characters that no field may have, or marks around what is no Base64 of
/// UTF-8 text.
pub(crate) fn decode(header: &str) -> Option<Cow<'_, str>> {
    if !header.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~')) {
        return None;
    }
    match header.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(AFTER)) {
        Some(coded) => Some(String::from_utf8(BASE64_STANDARD.decode(coded).ok()?).ok()?.into()),
        None => Some(header.into()),
    }
}

/// The parameter that `Mcp-Name` mirrors, and whether a request without the field must be refused.
fn named(method: &str) -> Option<(&'static str, bool)> {
    match method {
        "tools/call" | "prompts/get" => Some(("name", true)),
        "resources/read" => Some(("uri", true)),
        // Of the extension for tasks (SEP-2663), which asks clients for the field, but does not ask servers to check.
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some(("taskId", false)),
        _ => None,
    }
}

/// Checks `Mcp-Method` and `Mcp-Name` of a request.
///
/// # Errors
///
/// If one is missing, comes twice, is malformed, or says something else than the body: a text for people.
pub(crate) fn check_standard(headers: &Headers, method: &str, params: Option<&RawValue>) -> Result<(), String> {
    let Some(given) = single(headers, "mcp-method", "Mcp-Method")? else {
        return Err("Header mismatch: Mcp-Method is missing".into());
    };
    // No Base64 here: a method has no characters that need it.
    if given != method {
        let (given, method) = (Shown(given), Shown(method));
        return Err(format!("Header mismatch: Mcp-Method is '{given}', the body says '{method}'"));
    }
    let Some((member, required)) = named(method) else { return Ok(()) };
    let given = single(headers, "mcp-name", "Mcp-Name")?;
    let value = match rpc::member(params, member) {
        Ok(value) => value,
        Err(_) => return Err(format!("Header mismatch: the body has two members '{member}'")),
    };
    let Some(value) = value else {
        // With neither, nothing disagrees; the server will say that the parameter is missing.
        return match given {
            None => Ok(()),
            Some(_) => Err(format!("Header mismatch: Mcp-Name is there, but the body has no '{member}'")),
        };
    };
    let Some(value) = rpc::string(value) else {
        return Err(format!(
            "Header mismatch: '{member}' in the body is not a string, so Mcp-Name cannot say the same"
        ));
    };
    match given.map(decode) {
        None if required => Err("Header mismatch: Mcp-Name is missing".into()),
        None => Ok(()),
        Some(None) => Err(malformed("Mcp-Name")),
        Some(Some(given)) if given == value => Ok(()),
        Some(Some(given)) => {
            Err(format!("Header mismatch: Mcp-Name is '{}', the body says '{}'", Shown(&given), Shown(&value)))
        }
    }
}

/// The standard header fields of a request that we send: `mcp-method`, and `mcp-name` where the method has one.
pub(crate) fn standard(method: &str, params: Option<&RawValue>) -> Vec<(&'static str, String)> {
    // Encoded only against injection: a method that needs it is none that a server knows.
    let mut fields = vec![("mcp-method", encode(method).into_owned())];
    if let Some((member, _)) = named(method)
        && let Some(value) = rpc::member(params, member).ok().flatten().and_then(rpc::string)
    {
        fields.push(("mcp-name", encode(&value).into_owned()));
    }
    fields
}

/// The only field of this name, without the white space around it that is not part of its value (RFC 9110, section 5.5).
fn single<'h>(headers: &'h Headers, name: &'h str, shown: &str) -> Result<Option<&'h str>, String> {
    let mut all = headers.get_all(name);
    match (all.next(), all.next()) {
        (_, Some(_)) => Err(format!("Header mismatch: {shown} comes twice")),
        (first, None) => Ok(first.map(|value| value.trim_matches([' ', '\t']))),
    }
}

fn malformed(shown: &str) -> String {
    format!("Header mismatch: {shown} has characters that no header field may have, or bad Base64")
}

/// A stranger's text in a message for people: not too long, and without control characters.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX: usize = 80;
        let mut chars = self.0.chars();
        for char in chars.by_ref().take(MAX) {
            if char == '\'' || char == '"' {
                write!(f, "{char}")?;
            } else {
                write!(f, "{}", char.escape_debug())?;
            }
        }
        if chars.next().is_some() { f.write_str("...") } else { Ok(()) }
    }
}

/// What a schema says about the header fields of the arguments below it.
///
/// A tree, because with a list of paths a schema could make us keep one long name many times, and look through the
/// arguments as often.
#[derive(Debug, Default)]
struct Node {
    /// The field that mirrors the value here: `Mcp-Param-` and the annotation.
    header: Option<String>,
    /// The annotated members of the object here, and those with annotations below.
    members: Members,
}

/// By name. The names are bytes for the look-up of a name that may hold half of a surrogate pair.
type Members = BTreeMap<Vec<u8>, Node>;

impl Node {
    /// About how many bytes it takes.
    fn size(&self) -> usize {
        let members = self.members.iter().map(|(name, node)| name.len() + node.size());
        size_of::<Self>() + self.header.as_ref().map_or(0, String::len) + members.sum::<usize>()
    }
}

/// The annotations of a server's tools.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// Tools without annotations are not here, and neither are those whose annotations are invalid: of both, no argument is
    /// mirrored.
    tools: BTreeMap<String, Node>,
    /// The sum of their sizes.
    size: usize,
}

impl Catalog {
    /// How many tools are remembered at most.
    const MAX_TOOLS: usize = 10_000;
    /// How many bytes they may take together. A tool beyond one of the limits counts as one without annotations.
    const MAX_SIZE: usize = 16 << 20;

    /// Learns one page, the result of `tools/list`. What was known of other tools stays.
    pub(crate) fn learn(&mut self, result: &RawValue) {
        if self.tools.is_empty() && !mentions(result.get()) {
            return;
        }
        for tool in tools(result) {
            let annotated = match examine(tool) {
                Verdict::Annotated(node) => Some(node),
                Verdict::Plain | Verdict::Invalid(_) => None,
            };
            if annotated.is_none() && self.tools.is_empty() {
                continue;
            }
            let Some(name) = name(tool) else { continue };
            if let Some(old) = self.tools.remove(&*name) {
                self.size = self.size.saturating_sub(old.size() + name.len());
            }
            let Some(node) = annotated else { continue };
            let size = node.size() + name.len();
            if self.tools.len() < Self::MAX_TOOLS && size <= Self::MAX_SIZE.saturating_sub(self.size) {
                self.size += size;
                self.tools.insert(name.into_owned(), node);
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Checks the `Mcp-Param-*` fields of a `tools/call`. Fields that belong to no annotation are ignored.
    ///
    /// # Errors
    ///
    /// If one is missing, comes twice, is malformed, or says something else than the body: a text for people. It has no
    /// values in it, because these may be private.
    pub(crate) fn check(&self, headers: &Headers, params: Option<&RawValue>) -> Result<(), String> {
        let Some((tool, arguments)) = self.called(params)? else { return Ok(()) };
        // `None` for what comes twice.
        let mut given: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("mcp-param-")) {
            let value = value.trim_matches([' ', '\t']);
            given.entry(name).and_modify(|before| *before = None).or_insert(Some(value));
        }
        walk(&tool.members, arguments, &mut |header, value| {
            let given = match given.get(&*header.to_ascii_lowercase()) {
                None => None,
                Some(Some(given)) => Some(decode(given).ok_or_else(|| malformed(&Shown(header).to_string()))?),
                Some(None) => return Err(format!("Header mismatch: {} comes twice", Shown(header))),
            };
            match (given, value) {
                (None, None) => Ok(()),
                (None, Some(_)) => Err(format!("Header mismatch: {} is missing", Shown(header))),
                (Some(_), None) => {
                    Err(format!("Header mismatch: {} is there, but the body has no such argument", Shown(header)))
                }
                (Some(given), Some(value)) => match mirrored(value) {
                    Some(Mirrored::Text(text)) if text == given => Ok(()),
                    Some(Mirrored::Integer(number)) if integer(&given) == Some(number) => Ok(()),
                    Some(_) => Err(format!("Header mismatch: {} is not what the body says", Shown(header))),
                    None => Err(format!(
                        "Header mismatch: the argument for {} is no string, boolean or integer up to 2^53-1",
                        Shown(header)
                    )),
                },
            }
        })
    }

    /// The `mcp-param-*` fields of a `tools/call` that we send. An argument that cannot be mirrored has none: the server
    /// refuses the request then, as it should.
    pub(crate) fn headers(&self, params: Option<&RawValue>) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        if let Ok(Some((tool, arguments))) = self.called(params) {
            // Arguments that come twice end it early, and the server refuses them.
            let _ = walk(&tool.members, arguments, &mut |header, value| {
                let value = match value.and_then(mirrored) {
                    Some(Mirrored::Text(text)) => encode(&text).into_owned(),
                    Some(Mirrored::Integer(number)) => number.to_string(),
                    None => return Ok(()),
                };
                fields.push((header.to_ascii_lowercase(), value));
                Ok(())
            });
        }
        fields
    }

    /// The tool that is called, if it has annotations, and the arguments for it.
    fn called<'p>(&self, params: Option<&'p RawValue>) -> Result<Option<(&Node, Option<&'p RawValue>)>, String> {
        if self.tools.is_empty() {
            return Ok(None);
        }
        let twice = |_| "Header mismatch: the body has two members 'name' or 'arguments'".to_owned();
        let Some(name) = rpc::member(params, "name").map_err(twice)?.and_then(rpc::string) else { return Ok(None) };
        let Some(tool) = self.tools.get(&*name) else { return Ok(None) };
        Ok(Some((tool, rpc::member(params, "arguments").map_err(twice)?)))
    }
}

/// Calls `visit` for every annotated argument, with its value if it is there and not `null`.
fn walk<'n, 'a>(
    members: &'n Members,
    object: Option<&'a RawValue>,
    visit: &mut dyn FnMut(&'n str, Option<&'a RawValue>) -> Result<(), String>,
) -> Result<(), String> {
    let values = match object {
        Some(object) if object.get().starts_with('{') => serde_json::Deserializer::from_str(object.get())
            .deserialize_map(Wanted(members))
            .map_err(|_| "Header mismatch: an argument that has a header field comes twice")?,
        _ => BTreeMap::new(),
    };
    for (name, node) in members {
        let value = values.get(&**name).copied().filter(|value| value.get() != "null");
        if let Some(header) = &node.header {
            visit(header, value)?;
        }
        if !node.members.is_empty() {
            walk(&node.members, value, visit)?;
        }
    }
    Ok(())
}

/// Reads the members of an object that are wanted. One of them that comes twice is an error.
struct Wanted<'n>(&'n Members);

impl<'n, 'a> Visitor<'a> for Wanted<'n> {
    type Value = BTreeMap<&'n [u8], &'a RawValue>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = BTreeMap::new();
        while let Some(wanted) = map.next_key_seed(Which(self.0))? {
            match wanted {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(name) => {
                    if values.insert(name, map.next_value()?).is_some() {
                        return Err(A::Error::custom("a member comes twice"));
                    }
                }
            }
        }
        Ok(values)
    }
}

/// Reads a name and says which of the wanted ones it is.
struct Which<'n>(&'n Members);

impl<'n, 'a> DeserializeSeed<'a> for Which<'n> {
    type Value = Option<&'n [u8]>;
    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'n> Visitor<'_> for Which<'n> {
    type Value = Option<&'n [u8]>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }
    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.get_key_value(name).map(|(name, _)| name.as_slice()))
    }
}

/// What a header field says for a value.
enum Mirrored<'a> {
    Text(Cow<'a, str>),
    /// Compared as a number.
    Integer(i64),
}

/// `None` for a value that no field can say. It goes by the value: whether that suits the schema is for the server to see.
fn mirrored(value: &RawValue) -> Option<Mirrored<'_>> {
    match value.get() {
        text @ ("true" | "false") => Some(Mirrored::Text(text.into())),
        text if text.starts_with('"') => rpc::string(value).map(Mirrored::Text),
        text => integer(text).map(Mirrored::Integer),
    }
}

/// The integer that a JSON number is, within the range that every double can hold. `4.2e1` is one.
fn integer(text: &str) -> Option<i64> {
    const MAX: i64 = (1 << 53) - 1;
    // Without this, white space around the number would do.
    if !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) {
        return None;
    }
    let number: serde_json::Number = serde_json::from_str(text).ok()?;
    let whole = match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => whole,
        // The cast is exact within the range, and stays outside it otherwise.
        (None, Some(double)) if double.fract() == 0.0 => double as i64,
        _ => return None,
    };
    (-MAX..=MAX).contains(&whole).then_some(whole)
}

/// The result of `tools/list` without the tools whose annotations are invalid, every other byte unchanged, and the names of
/// those tools with the reasons, for the log. `None` if all are valid.
pub(crate) fn without_invalid(result: &RawValue) -> Option<(String, Vec<(String, String)>)> {
    let text = result.get();
    if !mentions(text) {
        return None;
    }
    let tools = tools(result);
    let places: Vec<_> = tools.iter().map(|tool| rpc::place(text, tool.get())).collect();
    let mut reasons = Vec::new();
    let mut kept = String::new();
    let (mut from, mut any_before) = (0, false);
    for (n, tool) in tools.iter().enumerate() {
        let Verdict::Invalid(reason) = examine(tool) else {
            any_before = true;
            continue;
        };
        let shown = name(tool).map_or_else(|| "(no name)".to_owned(), |name| Shown(&name).to_string());
        reasons.push((shown, reason));
        // One comma goes with it: the one before if there is something before, else the one after.
        let cut = if any_before {
            places[n - 1].end..places[n].end
        } else {
            places[n].start..places.get(n + 1).map_or(places[n].end, |next| next.start)
        };
        kept.push_str(&text[from..cut.start]);
        from = cut.end;
    }
    if reasons.is_empty() {
        return None;
    }
    kept.push_str(&text[from..]);
    Some((kept, reasons))
}

/// `nextCursor` of a page, as it is spelled; `None` if there is no other page.
pub(crate) fn next_cursor(result: &RawValue) -> Option<String> {
    let cursor = rpc::member(Some(result), "nextCursor").ok()??.get();
    cursor.starts_with('"').then(|| cursor.to_owned())
}

/// Whether a text may have an annotation in it. A letter of it may be spelled as an escape.
fn mentions(text: &str) -> bool {
    memmem::find(text.as_bytes(), ANNOTATION.as_bytes()).is_some() || memmem::find(text.as_bytes(), b"\\u00").is_some()
}

/// The tools of a page; none if it is malformed.
fn tools(result: &RawValue) -> Vec<&RawValue> {
    let tools = rpc::member(Some(result), "tools").ok().flatten();
    tools.and_then(|tools| serde_json::from_str(tools.get()).ok()).unwrap_or_default()
}

fn name(tool: &RawValue) -> Option<Cow<'_, str>> {
    rpc::member(Some(tool), "name").ok()?.and_then(rpc::string)
}

/// What a tool is.
enum Verdict {
    /// Without annotations.
    Plain,
    /// With these.
    Annotated(Node),
    /// With an annotation that must not be, for this reason.
    Invalid(String),
}

fn examine(tool: &RawValue) -> Verdict {
    if !mentions(tool.get()) {
        return Verdict::Plain;
    }
    let schema = match rpc::member(Some(tool), "inputSchema") {
        Ok(Some(schema)) if mentions(schema.get()) => schema,
        Ok(_) => return Verdict::Plain,
        Err(_) => return Verdict::Invalid("it has two members inputSchema".into()),
    };
    let schema: Value = match serde_json::from_str(schema.get()) {
        Ok(schema) => schema,
        // Too deep, a number that is too large, half of a surrogate pair: what it says about annotations is not known.
        Err(_) if memmem::find(schema.get().as_bytes(), ANNOTATION.as_bytes()).is_none() => return Verdict::Plain,
        Err(error) => return Verdict::Invalid(format!("its inputSchema cannot be read: {error}")),
    };
    match scan(&schema, Standing::Root, &mut BTreeSet::new()) {
        Ok(None) => Verdict::Plain,
        Ok(Some(node)) => Verdict::Annotated(node),
        Err(reason) => Verdict::Invalid(reason),
    }
}

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is that of all arguments.
    Root,
    /// It is that of one argument: only `properties` lead to it.
    Property,
    /// Something else led to it.
    Elsewhere,
}

/// Finds the annotations in a schema. `names` are those that were found, in lower case. The depth is what `serde_json` lets
/// through, 128.
fn scan(schema: &Value, standing: Standing, names: &mut BTreeSet<String>) -> Result<Option<Node>, String> {
    let object = match schema {
        Value::Object(object) => object,
        Value::Array(schemas) => {
            for schema in schemas {
                scan(schema, Standing::Elsewhere, names)?;
            }
            return Ok(None);
        }
        _ => return Ok(None),
    };
    let mut node = Node::default();
    if let Some(annotation) = object.get(ANNOTATION) {
        node.header = Some(header(annotation, object.get("type"), standing, names)?);
    }
    for (keyword, value) in object {
        match (&**keyword, value) {
            // These hold values, not schemas.
            (ANNOTATION | "default" | "examples" | "example" | "enum" | "const", _) => {}
            ("properties", Value::Object(properties)) if standing != Standing::Elsewhere => {
                for (name, schema) in properties {
                    if let Some(below) = scan(schema, Standing::Property, names)? {
                        node.members.insert(name.clone().into_bytes(), below);
                    }
                }
            }
            // In these, the members have names that somebody chose.
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" | "dependencies",
                Value::Object(schemas),
            ) => {
                for schema in schemas.values() {
                    scan(schema, Standing::Elsewhere, names)?;
                }
            }
            _ => drop(scan(value, Standing::Elsewhere, names)?),
        }
    }
    Ok((node.header.is_some() || !node.members.is_empty()).then_some(node))
}

/// The header field of an annotation.
fn header(
    annotation: &Value,
    kind: Option<&Value>,
    standing: Standing,
    names: &mut BTreeSet<String>,
) -> Result<String, String> {
    let Value::String(name) = annotation else {
        return Err(format!("an {ANNOTATION} is not a string"));
    };
    let wrong = |why: &str| Err(format!("{ANNOTATION} '{}' {why}", Shown(name)));
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
        return wrong("cannot be part of the name of a header field");
    }
    if standing != Standing::Property {
        return wrong("stands where more than \"properties\" leads to it");
    }
    let mirrored = |kind: &Value| matches!(kind.as_str(), Some("string" | "integer" | "boolean"));
    let primitive = match kind {
        // That a value may be null as well is no harm: it has no field then.
        Some(Value::Array(kinds)) => {
            kinds.iter().any(mirrored) && kinds.iter().all(|kind| mirrored(kind) || kind.as_str() == Some("null"))
        }
        Some(kind) => mirrored(kind),
        None => false,
    };
    if !primitive {
        return wrong("is not on a string, an integer or a boolean");
    }
    if !names.insert(name.to_ascii_lowercase()) {
        return wrong("comes twice");
    }
    Ok(format!("Mcp-Param-{name}"))
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
