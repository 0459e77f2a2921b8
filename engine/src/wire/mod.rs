//! The codecs: bytes to items and back, without any protocol state. They are public because they are useful alone and
//! because fuzzers want them.
//!
//! All decoders share one shape. The caller lends `&mut &[u8]`; the decoder advances it and yields one item; `None` means
//! "more bytes, please". The size limit is a constructor argument. Any split of the input gives the same items.

pub mod fetch;
pub mod gzip;
pub mod http;
pub mod lines;
pub mod object;
pub mod rpc;
pub mod sse;
