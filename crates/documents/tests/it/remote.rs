//! Inputs over HTTP and S3, against servers that behave and servers that do not. Nothing leaves the machine.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use documents::{Error, ReadOptions, digest_inputs, list_input_files, open_input, read_documents};

use crate::server::{Reply, Request, Server};
use crate::{gzip, line, zstandard};

/// Some 20 MB that do not shrink: three ranges.
static LARGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 7u64;
    let mut bytes = Vec::new();
    for number in 0..2_500 {
        let words: String = (0..500)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                format!("{:016x}", state >> 1)
            })
            .collect();
        bytes.extend(line(&number.to_string(), &words).into_bytes());
    }
    assert!(bytes.len() > 20_000_000);
    bytes
});

fn good(input: &Path) -> Result<Vec<String>, Error> {
    let records = read_documents(&[input.to_path_buf()], ReadOptions::default())?;
    records.map(|record| Ok(record?.document.unwrap().id)).collect()
}

fn is_head(request: &Request) -> bool {
    request.method == "HEAD"
}

fn error(input: PathBuf) -> String {
    good(&input).unwrap_err().to_string()
}

#[test]
fn a_file_arrives_whole_over_connections_that_break() {
    let packed = zstandard(&LARGE);
    assert!(packed.len() > 9_000_000, "more than one range: {}", packed.len());
    for etag in [Some("\"one\""), None] {
        let bytes = packed.clone();
        let server = Server::start(move |request| {
            let reply = Reply::of(&bytes, request);
            let reply = match etag {
                Some(etag) => reply.with("ETag", etag),
                None => reply,
            };
            match request.number {
                1 => reply.cut_at(3_000_000),
                2 => reply.cut_at(1_000_000),
                3 => Reply::new("500 Internal Server Error"),
                5 => Reply::new("503 Slow Down"),
                6 => reply.cut_at(1),
                _ => reply,
            }
        });
        let ids = good(&server.address("/crawl/x.jsonl.zst")).unwrap();
        assert_eq!(ids, (0..2_500).map(|number| number.to_string()).collect::<Vec<_>>());
        let gets: Vec<Request> =
            server.requests().into_iter().filter(|request| request.method == "GET").collect();
        assert!(gets.len() >= 4 && gets.iter().all(|request| request.range.is_some()), "{gets:?}");
        assert!(
            gets.iter().all(|request| request.if_match.as_deref() == etag),
            "every range is of one version"
        );
    }
}

#[test]
fn a_server_without_ranges_is_read_from_the_beginning_again() {
    let server = Server::start(|request| {
        let whole = Reply::of(&LARGE, &Request { range: None, ..request.clone() });
        match request.number {
            ..4 => whole.cut_at(9_000_000),
            _ => whole,
        }
    });
    assert_eq!(good(&server.address("/x.jsonl")).unwrap().len(), 2_500);
}

#[test]
fn redirects_and_queries_are_followed() {
    let server = Server::start(|request| match request.target.as_str() {
        "/a/x.jsonl?download=true" => Reply::new("302 Found").with("Location", "/b%20c/stored?sig=1"),
        "/b%20c/stored?sig=1" => Reply::of(line("1", "Sníh.").as_bytes(), request),
        _ => Reply::new("404 Not Found"),
    });
    let address = server.address("/a/x.jsonl?download=true");
    assert_eq!(list_input_files(std::slice::from_ref(&address)).unwrap()[0].name, "x.jsonl");
    assert_eq!(good(&address).unwrap(), ["1"]);
}

#[test]
fn refusals_say_what_to_do_and_keep_secrets() {
    for (status, expected) in [
        ("404 Not Found", "not there (404)"),
        ("401 Unauthorized", "AWS_SECRET_ACCESS_KEY"),
        ("403 Forbidden", "refuses (403)"),
        ("400 Bad Request", "400"),
    ] {
        let server = Server::start(move |_| Reply::new(status));
        for address in [server.address("/x.jsonl?X-Amz-Signature=secret"), server.s3("bucket/x.jsonl")] {
            let message = error(address.clone());
            assert!(message.contains(expected) && message.contains("x.jsonl"), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
    let message = error(PathBuf::from("s3://bucket/x.jsonl?colour=blue"));
    assert!(message.contains("`colour` is unknown"), "{message}");
    let message = error(PathBuf::from("https://host.example/folder/"));
    assert!(message.contains("not a kind of file"), "{message}");
    let message = error(PathBuf::from("s3:///key"));
    assert!(message.contains("expected a host or bucket"), "{message}");
}

#[test]
fn a_client_for_https_can_be_made() {
    // Port 9 discards; nothing listens there. What counts is that the error is not about a missing provider of TLS.
    let message = error(PathBuf::from("https://127.0.0.1:9/x.jsonl"));
    assert!(message.contains("cannot be fetched") && !message.contains("provider"), "{message}");
}

#[test]
fn a_server_that_lies_about_lengths_or_versions_is_found_out() {
    let check = |answer: fn(&Request, Reply) -> Reply, expected: &str| {
        let bytes = LARGE[..10_000_000].to_vec();
        let server = Server::start(move |request| answer(request, Reply::of(&bytes, request)));
        let message = error(server.address("/x.jsonl"));
        assert!(message.contains(expected) && message.contains("/x.jsonl"), "{message}");
    };
    check(
        |request, reply| match is_head(request) {
            true => reply.with("Content-Length", "9000000"),
            false => reply,
        },
        "9000000 bytes were announced first, now 10000000",
    );
    check(
        |request, reply| match is_head(request) {
            true => reply.with("ETag", "\"one\""),
            false => reply.with("ETag", "\"two\""),
        },
        "its ETag was \"one\" and is now \"two\"",
    );
    check(
        |request, reply| match is_head(request) {
            true => reply.with("ETag", "\"one\""),
            false => Reply::new("412 Precondition Failed"),
        },
        "changed while it was read",
    );
}

#[test]
fn an_empty_object_is_damage_like_an_empty_file() {
    let server = Server::start(|request| Reply::of(b"", &Request { range: None, ..request.clone() }));
    let found: Vec<_> =
        read_documents(&[server.address("/x.jsonl")], ReadOptions::default()).unwrap().collect();
    assert!(matches!(found[..], [Err(Error::EmptyFile { .. })]));
}

/// A bucket of three shards and some other files, listed in two pages.
fn bucket() -> Server {
    Server::start(|request| {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let stored = |name: &str| {
            match name {
            "crawl/a.jsonl" => Some(line("a", "Adhmad.").into_bytes()),
            "crawl/deep/b.jsonl.gz" => Some(gzip(line("b", "Bainne.").as_bytes())),
            "crawl/c.warc.gz" => Some(gzip(b"WARC/1.0\r\nWARC-Type: resource\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nCois\r\n\r\n")),
            _ => None,
        }
        };
        if query.contains("list-type=2") {
            assert!(query.contains("prefix=crawl%2F"), "{query}");
            let second = query.contains("continuation-token=page2");
            let entry = |key: &str| {
                format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag><Size>7</Size></Contents>"
                )
            };
            let (keys, rest): (&[&str], &str) = match second {
                false => (
                    &["crawl/c.warc.gz", "crawl/deep/b.jsonl.gz", "crawl/README.md"],
                    "<IsTruncated>true</IsTruncated><NextContinuationToken>page2</NextContinuationToken>",
                ),
                true => (
                    &["crawl/a.jsonl", "crawl/sums.sha256", "crawl/.hidden/x.jsonl"],
                    "<IsTruncated>false</IsTruncated>",
                ),
            };
            let entries: String = keys.iter().map(|key| entry(key)).collect();
            let xml = format!(
                "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix>crawl/</Prefix><KeyCount>3</KeyCount><MaxKeys>3</MaxKeys>{rest}{entries}</ListBucketResult>"
            );
            return Reply { body: xml.into_bytes(), ..Reply::new("200 OK") }
                .with("Content-Type", "application/xml");
        }
        match path.strip_prefix("/bucket/").and_then(stored) {
            Some(bytes) => Reply::of(&bytes, request)
                .with("ETag", format!("\"{}\"", bytes.len()))
                .with("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
            None => Reply::new("404 Not Found"),
        }
    })
}

#[test]
fn a_prefix_of_a_bucket_is_a_folder() {
    let server = bucket();
    let input = server.s3("bucket/crawl/");
    let files = list_input_files(std::slice::from_ref(&input)).unwrap();
    assert_eq!(
        files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(),
        ["a.jsonl", "c.warc.gz", "deep/b.jsonl.gz"]
    );
    assert_eq!(good(&input).unwrap(), ["a", "c.warc.gz#1", "b"]);
    let one = open_input(&files[2], ReadOptions::default()).unwrap();
    assert_eq!(one.map(|raw| raw.unwrap().parse().document.unwrap().id).collect::<Vec<_>>(), ["b"]);
    assert_eq!(good(&server.s3("bucket/crawl/a.jsonl")).unwrap(), ["a"]);
    assert!(error(server.s3("bucket/crawl/none.jsonl")).contains("404"));
}

#[test]
fn a_digest_knows_the_version_and_not_the_place() {
    let (one, two) = (bucket(), bucket());
    let digests = digest_inputs(&[one.s3("bucket/crawl/")]).unwrap();
    assert_eq!(digests, digest_inputs(&[two.s3("bucket/crawl")]).unwrap());
    assert!(
        one.requests().iter().all(|request| request.range.is_none()),
        "a strong ETag spares the fetching"
    );
    let without_tags =
        |text: &'static str| Server::start(move |request| Reply::of(line("1", text).as_bytes(), request));
    let digest = |text| digest_inputs(&[without_tags(text).address("/x.jsonl")]).unwrap();
    assert_eq!(digest("Ema"), digest("Ema"));
    assert_ne!(digest("Ema"), digest("Isa"), "without a tag, the bytes count");
}

#[test]
fn damage_in_a_remote_warc_costs_its_record() {
    let record = |word: &str| {
        let head = format!(
            "WARC/1.0\r\nWARC-Type: resource\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            word.len()
        );
        gzip(format!("{head}{word}\r\n\r\n").as_bytes())
    };
    let mut middle = record("vidus");
    middle[20..30].fill(0xEE);
    let bytes = [record("sākums"), middle, record("beigas")].concat();
    let server = Server::start(move |request| Reply::of(&bytes, request));
    let found: Vec<_> = read_documents(&[server.address("/x.warc.gz")], ReadOptions::default())
        .unwrap()
        .map(|record| record.unwrap().document.map(|document| document.text))
        .collect();
    // What came out of the damaged member before its checksum was known may be a bad record of its own.
    let (first, last) = (found.first().unwrap(), found.last().unwrap());
    assert_eq!((first.as_deref().ok(), last.as_deref().ok()), (Some("sākums"), Some("beigas")));
    assert!(found.len() >= 3 && found[1..found.len() - 1].iter().all(Result::is_err), "{found:?}");
}

#[test]
fn a_reader_that_is_dropped_stops_the_fetching() {
    let server = Server::start(|request| Reply::of(&LARGE, request));
    let files = list_input_files(&[server.address("/x.jsonl")]).unwrap();
    let mut reader = open_input(&files[0], ReadOptions::default()).unwrap();
    assert!(reader.next().unwrap().is_ok());
    drop(reader);
}
