//! A JSON object, taken apart for editing: members are replaced, removed or added, and all others stay the bytes they were.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::rpc;

/// An object and what becomes of its members.
///
/// ```
/// use mcp_proxy_engine::wire::object::Object;
/// let mut object = Object::parse(r#"{"a": 1e400, "b":2}"#).unwrap();
/// object.set("c", "[3]");
/// object.remove("b");
/// assert_eq!(object.to_string(), r#"{"a":1e400,"c":[3]}"#);
/// ```
#[derive(Clone, Debug)]
pub struct Object<'a> {
    members: Vec<Member<'a>>,
}

#[derive(Clone, Debug)]
struct Member<'a> {
    /// As it was spelled, with its quotes.
    spelled: Cow<'a, str>,
    value: Cow<'a, str>,
}

impl Member<'_> {
    fn is(&self, name: &str) -> bool {
        let inner = &self.spelled[1..self.spelled.len() - 1];
        // Only a name with an escape can be another than it looks.
        inner == name
            || (inner.contains('\\') && serde_json::from_str::<String>(&self.spelled).is_ok_and(|n| n == name))
    }
}

impl<'a> Object<'a> {
    /// An object without members.
    #[must_use]
    pub const fn new() -> Self {
        Object { members: Vec::new() }
    }

    /// Takes an object apart; `None` if the text is not one JSON object.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        struct Members;
        impl<'a> Visitor<'a> for Members {
            type Value = Vec<Member<'a>>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<&'a RawValue, &'a RawValue>()? {
                    members.push(Member { spelled: Cow::Borrowed(name.get()), value: Cow::Borrowed(value.get()) });
                }
                Ok(members)
            }
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let members = deserializer.deserialize_map(Members).ok()?;
        deserializer.end().ok()?;
        Some(Object { members })
    }

    /// [`Object::parse`] for what may be missing: no text is an object without members.
    #[must_use]
    pub fn parse_or_new(text: Option<&'a RawValue>) -> Option<Self> {
        text.map_or(Some(Object::new()), |text| Object::parse(text.get()))
    }

    /// The raw value of a member; of the last one, if several have this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.members.iter().rev().find(|member| member.is(name)).map(|member| &*member.value)
    }

    /// The members, in their order: the names as they were spelled, and the raw values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|member| (&*member.spelled, &*member.value))
    }

    /// Gives a member a value, which must be JSON: in its old place, or as the last one. Of several members of this name
    /// one is left.
    pub fn set(&mut self, name: &str, value: impl Into<Cow<'a, str>>) {
        let value = value.into();
        let Some(place) = self.members.iter().rposition(|member| member.is(name)) else {
            let spelled = serde_json::Value::from(name).to_string().into();
            return self.members.push(Member { spelled, value });
        };
        self.members[place].value = value;
        let mut n = 0;
        self.members.retain(|member| {
            n += 1;
            n > place || !member.is(name)
        });
    }

    /// Takes members of this name out. True if there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.members.len();
        self.members.retain(|member| !member.is(name));
        self.members.len() < before
    }

    /// Whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

impl Default for Object<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (n, member) in self.members.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{}:{}", member.spelled, member.value)?;
        }
        f.write_str("}")
    }
}

/// Whether an object may have one of these members at any depth: a search is cheaper than a parse. An escaped spelling is
/// not missed.
#[must_use]
pub fn may_mention(json: &str, names: &[&str]) -> bool {
    let bytes = json.as_bytes();
    names.iter().any(|name| memchr::memmem::find(bytes, name.as_bytes()).is_some())
        || memchr::memmem::find(bytes, b"\\u").is_some()
}

/// A raw string as a JSON value.
#[must_use]
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The text of a raw JSON string; `None` if it is something else.
#[must_use]
pub fn unquote(raw: &str) -> Option<String> {
    serde_json::from_str::<&RawValue>(raw).ok().and_then(rpc::string).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_edited_and_the_rest_stays() {
        let text = r#" {"\u0061" : "\ud800", "b":{"x": 1.0e5} ,"c":null,"a\"":[ 1 ]} "#;
        let mut object = Object::parse(text).unwrap();
        assert_eq!(object.get("a"), Some(r#""\ud800""#));
        assert_eq!(object.get("a\""), Some("[ 1 ]"));
        object.set("a", "1");
        object.set("d\n", "2");
        assert!(object.remove("c"));
        assert!(!object.remove("x"));
        assert_eq!(object.to_string(), r#"{"\u0061":1,"b":{"x": 1.0e5},"a\"":[ 1 ],"d\n":2}"#);
        let mut twice = Object::parse(r#"{"a":1,"b":2,"a":3,"c":4}"#).unwrap();
        twice.set("a", "5");
        assert_eq!(twice.to_string(), r#"{"b":2,"a":5,"c":4}"#);
        for bad in ["", "[]", "{", "{} {}", "1", "{\"a\":}"] {
            assert!(Object::parse(bad).is_none(), "{bad}");
        }
        assert!(Object::parse("{}").unwrap().is_empty());
    }

    #[test]
    fn searching() {
        assert!(may_mention(r#"{"r\u0065sult":1}"#, &["result"]) && !may_mention("{}", &["result"]));
        assert_eq!(unquote(&quote("a\"\n")).as_deref(), Some("a\"\n"));
        assert_eq!(unquote("1"), None);
    }
}
