//! The committed corpus of every fuzz body, on any toolchain.

use std::path::Path;

use mcp_proxy_tests::fuzz::BODIES;

#[test]
fn the_corpus_of_every_body() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, body) in BODIES {
        let mut files: Vec<_> = std::fs::read_dir(corpus.join(name))
            .unwrap_or_else(|e| panic!("there is no corpus of {name}: {e}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "the corpus of {name} is empty");
        for file in files {
            println!("{}", file.display());
            body(&std::fs::read(&file).unwrap());
        }
    }
}

#[test]
fn every_body_takes_nothing_and_noise() {
    for (_, body) in BODIES {
        body(b"");
        for n in 0..=255 {
            body(&[n]);
            body(&[n, n.wrapping_mul(7), b'\n', n, b'\r', b'\n', b'{', n, b'}', b'\n', b'\n']);
        }
    }
}
