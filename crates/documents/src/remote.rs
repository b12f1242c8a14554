//! Inputs that stand elsewhere: `https://` and `http://` addresses of files, `s3://bucket/prefix` of S3 and of every store
//! that speaks its protocol.
//!
//! The one place beside the server where the program talks to a network, and an async runtime, which stays inside: the
//! rest of the crate sees a blocking [`RemoteStream`] and ranges of bytes. An object is fetched in ranges, a few of them
//! ahead of the reader; a range that breaks off is fetched again, so that a long object needs no unbroken connection. All
//! ranges must come from the same version (`ETag`) and add up to the length that was announced.
//!
//! An address on another store than Amazon's names it: `s3://bucket/prefix?endpoint=https://store.example&region=eu-1`.
//! Credentials come from the environment variables that all S3 tools share (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
//! …), never from an address; without them requests are not signed, which is right for public data.

use std::env;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectStore, RetryConfig};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::inputs::{InputFile, is_about_the_folder, kind_of};
use crate::source::shown;

/// Large enough that a request's round trip costs little beside its bytes, small enough to fetch again.
const RANGE_BYTES: u64 = 8 << 20;
/// Ranges under way at once: together with the one being read, 40 MiB of memory for an input.
const READ_AHEAD: usize = 4;
/// How often one range is asked for whose bytes break off. Requests that fail at once are repeated below this, in
/// `object_store`, as [`retries`] says: a store that is down for some minutes ends no run.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Silence of a server that counts as a broken connection.
const SILENCE: Duration = Duration::from_secs(60);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    // The provider of the whole program; where the server has installed it already, it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("remote")
        .enable_all()
        .build()
        .expect("two threads can be started")
});

/// A file in a store, found and measured.
#[derive(Clone)]
pub struct RemoteObject {
    store: Arc<dyn ObjectStore>,
    location: object_store::path::Path,
    /// For messages: without what may be secret.
    address: Arc<str>,
    pub length: u64,
    pub etag: Option<String>,
}

/// Asks for the object behind an address.
pub fn open(path: &Path) -> Result<RemoteObject, Error> {
    let address = Address::parse(path)?;
    let location = address.location()?;
    let store = address.store()?;
    let shown: Arc<str> = address.shown().into();
    let head =
        RUNTIME.block_on(store.get_opts(&location, GetOptions { head: true, ..GetOptions::default() }));
    let meta = head.map_err(|error| address.error(&error))?.meta;
    Ok(RemoteObject { store, location, address: shown, length: meta.size, etag: meta.e_tag })
}

/// The files behind an address: itself, or for S3 all below a prefix, in the order of their names.
pub fn list(path: &Path) -> Result<Vec<InputFile>, Error> {
    let address = Address::parse(path)?;
    let own_name = address.key.rsplit('/').next().unwrap_or_default();
    if !own_name.is_empty() && kind_of(own_name).is_some() {
        return Ok(vec![InputFile { path: path.to_path_buf(), name: own_name.to_string() }]);
    }
    let Scheme::S3 { .. } = address.scheme else {
        return Err(Error::UnknownKind { path: shown(path) });
    };
    let store = address.store()?;
    let prefix = address.location()?;
    let listing =
        store.list(Some(&prefix)).map_ok(|meta| meta.location.to_string()).try_collect::<Vec<String>>();
    let keys = RUNTIME.block_on(listing).map_err(|error| address.error(&error))?;
    let mut files: Vec<InputFile> = keys
        .into_iter()
        .filter_map(|key| {
            let name = key.strip_prefix(prefix.as_ref())?.trim_start_matches('/').to_string();
            let hidden = name.split('/').any(|part| part.starts_with('.'));
            let file_name = name.rsplit('/').next().unwrap_or_default();
            let wanted = !hidden && !is_about_the_folder(file_name) && kind_of(&name).is_some();
            wanted.then(|| InputFile { path: address.with_key(&key), name })
        })
        .collect();
    if files.is_empty() {
        return Err(Error::NoFiles { path: shown(path) });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

enum Scheme {
    /// The whole address is the object's: queries may belong to it.
    Http,
    S3 {
        bucket: String,
        endpoint: Option<String>,
        region: Option<String>,
    },
}

struct Address {
    text: String,
    scheme: Scheme,
    /// The path within the bucket, or that of the address.
    key: String,
    query: Option<String>,
}

impl Address {
    fn parse(path: &Path) -> Result<Address, Error> {
        let text = path.to_str().ok_or_else(|| Error::NameNotUtf8 { path: path.to_path_buf() })?;
        let wrong = |problem: String| Error::Address { address: shown(path).display().to_string(), problem };
        let (without_query, query) = match text.split_once('?') {
            Some((address, query)) => (address, Some(query.to_string())),
            None => (text, None),
        };
        let (scheme, rest) = without_query.split_once("://").unwrap_or_default();
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err(wrong("expected a host or bucket after `://`".to_string()));
        }
        let scheme = match scheme {
            "s3" => {
                let (mut endpoint, mut region) = (None, None);
                for part in query.iter().flat_map(|query| query.split('&')) {
                    match part.split_once('=') {
                        Some(("endpoint", value)) => endpoint = Some(value.to_string()),
                        Some(("region", value)) => region = Some(value.to_string()),
                        _ => {
                            let name = part.split('=').next().unwrap_or_default();
                            return Err(wrong(format!(
                                "`{name}` is unknown; expected `endpoint` or `region`"
                            )));
                        }
                    }
                }
                Scheme::S3 { bucket: host.to_string(), endpoint, region }
            }
            _ => Scheme::Http,
        };
        Ok(Address { text: text.to_string(), scheme, key: key.trim_end_matches('/').to_string(), query })
    }

    fn store(&self) -> Result<Arc<dyn ObjectStore>, Error> {
        LazyLock::force(&RUNTIME);
        let plain = self.text.starts_with("http://");
        let client = ClientOptions::new()
            .with_timeout_disabled()
            .with_read_timeout(SILENCE)
            .with_connect_timeout(Duration::from_secs(10))
            .with_allow_http(plain);
        let built: Result<Arc<dyn ObjectStore>, _> = match &self.scheme {
            Scheme::Http => {
                let builder = HttpBuilder::new().with_url(&self.text);
                builder
                    .with_client_options(client)
                    .with_retry(retries())
                    .build()
                    .map(|store| Arc::new(store) as _)
            }
            Scheme::S3 { bucket, endpoint, region } => {
                let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                if let Some(region) = region {
                    builder = builder.with_region(region);
                }
                let plain = endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
                builder
                    .with_client_options(client.with_allow_http(plain))
                    .with_retry(retries())
                    .with_skip_signature(!has_credentials())
                    .build()
                    .map(|store| Arc::new(store) as _)
            }
        };
        built.map_err(|error| self.error(&error))
    }

    fn location(&self) -> Result<object_store::path::Path, Error> {
        match self.scheme {
            // The store is the object itself: its address is taken as it is written.
            Scheme::Http => Ok(object_store::path::Path::default()),
            Scheme::S3 { .. } => object_store::path::Path::parse(&self.key)
                .map_err(|error| Error::Address { address: self.shown(), problem: error.to_string() }),
        }
    }

    fn with_key(&self, key: &str) -> PathBuf {
        let Scheme::S3 { bucket, .. } = &self.scheme else { return PathBuf::from(&self.text) };
        let query = self.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
        PathBuf::from(format!("s3://{bucket}/{key}{query}"))
    }

    fn shown(&self) -> String {
        shown(Path::new(&self.text)).display().to_string()
    }

    fn error(&self, error: &object_store::Error) -> Error {
        let address = self.shown();
        match error {
            object_store::Error::NotFound { .. } => Error::RemoteMissing { address },
            object_store::Error::Unauthenticated { .. } => Error::RemoteLogin { address },
            object_store::Error::PermissionDenied { .. } => Error::RemoteForbidden { address },
            other => Error::Remote { address, problem: without_query(&other.to_string()) },
        }
    }
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: 6, retry_timeout: Duration::from_secs(60), ..RetryConfig::default() }
}

/// Whether the environment says who asks. Otherwise a library would go on to ask the machine's metadata service, which
/// few machines have.
fn has_credentials() -> bool {
    [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ]
    .iter()
    .any(|name| env::var_os(name).is_some())
}

/// A message whose addresses have lost their queries.
fn without_query(message: &str) -> String {
    let words = message.split(' ').map(|word| match word.split_once('?') {
        Some((address, _)) if word.contains("://") => address,
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

impl RemoteObject {
    /// The bytes from `offset` to the end, fetched ahead of the reader.
    pub fn stream(&self, offset: u64) -> RemoteStream {
        let (sender, receiver) = mpsc::channel(1);
        let object = self.clone();
        RUNTIME.spawn(async move { object.send_all(offset, sender).await });
        RemoteStream { receiver, held: Bytes::new(), failed: None }
    }

    /// The bytes of one range.
    pub fn range(&self, range: Range<u64>) -> io::Result<Bytes> {
        RUNTIME.block_on(self.fetch(range)).map_err(|failure| self.io_error(failure))
    }

    async fn send_all(self, offset: u64, sender: mpsc::Sender<io::Result<Bytes>>) {
        let starts = (offset..self.length).step_by(RANGE_BYTES as usize);
        let ranges = starts.map(|start| start..(start + RANGE_BYTES).min(self.length));
        let mut fetched =
            futures_util::stream::iter(ranges).map(|range| self.fetch(range)).buffered(READ_AHEAD);
        let mut sent = offset;
        while let Some(result) = fetched.next().await {
            let bytes = match result {
                Ok(bytes) => bytes,
                Err(Failure::NoRanges) => {
                    drop(fetched);
                    return self.send_whole(sent, sender).await;
                }
                Err(failure) => {
                    let _ = sender.send(Err(self.io_error(failure))).await;
                    return;
                }
            };
            sent += bytes.len() as u64;
            // Nobody reads any more: nothing is left to do.
            if sender.send(Ok(bytes)).await.is_err() {
                return;
            }
        }
    }

    /// For servers that know no ranges: the object from its beginning, again after each break, as far as it was not sent
    /// yet.
    async fn send_whole(&self, mut sent: u64, sender: mpsc::Sender<io::Result<Bytes>>) {
        let mut attempt = 0;
        loop {
            let before = sent;
            let Err(problem) = self.send_once(&mut sent, &sender).await else { return };
            attempt = if sent > before { 1 } else { attempt + 1 };
            if attempt >= ATTEMPTS {
                let _ = sender.send(Err(self.io_error(Failure::Other(problem)))).await;
                return;
            }
            pause(attempt).await;
        }
    }

    async fn send_once(
        &self,
        sent: &mut u64,
        sender: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), String> {
        let got = self.store.get_opts(&self.location, GetOptions::default()).await;
        let got = got.map_err(|error| error.to_string())?;
        self.check_version(&got.meta)?;
        let mut position = 0;
        let mut stream = got.into_stream();
        while let Some(bytes) = stream.next().await {
            let mut bytes = bytes.map_err(|error| error.to_string())?;
            position += bytes.len() as u64;
            let known = (bytes.len() as u64).saturating_sub(position.saturating_sub(*sent));
            bytes.advance(known as usize);
            if position > self.length {
                return Err(format!("more than the {} bytes that were announced", self.length));
            }
            if !bytes.is_empty() {
                *sent += bytes.len() as u64;
                if sender.send(Ok(bytes)).await.is_err() {
                    return Ok(());
                }
            }
        }
        match position == self.length {
            true => Ok(()),
            false => Err(format!("{position} bytes came instead of {}", self.length)),
        }
    }

    /// One range, asked for again where its bytes break off.
    async fn fetch(&self, range: Range<u64>) -> Result<Bytes, Failure> {
        let mut attempt = 0;
        loop {
            let failure = match self.fetch_once(&range).await {
                Err(Failure::Other(problem)) => problem,
                other => return other,
            };
            attempt += 1;
            if attempt >= ATTEMPTS {
                return Err(Failure::Other(failure));
            }
            pause(attempt).await;
        }
    }

    async fn fetch_once(&self, range: &Range<u64>) -> Result<Bytes, Failure> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            // A weak tag never matches (RFC 9110, 13.1.1): only a strong one is asked for.
            if_match: self.etag.clone().filter(|etag| !etag.starts_with("W/")),
            ..GetOptions::default()
        };
        let got = self.store.get_opts(&self.location, options).await.map_err(Failure::of)?;
        self.check_version(&got.meta).map_err(Failure::Changed)?;
        let expected = range.end - range.start;
        let mut bytes = Vec::with_capacity(expected as usize);
        let mut stream = got.into_stream();
        while let Some(part) = stream.next().await {
            bytes.extend_from_slice(&part.map_err(Failure::of)?);
            if bytes.len() as u64 > expected {
                break;
            }
        }
        match bytes.len() as u64 == expected {
            true => Ok(bytes.into()),
            false => Err(Failure::Other(format!("{} bytes came instead of {expected}", bytes.len()))),
        }
    }

    fn check_version(&self, meta: &object_store::ObjectMeta) -> Result<(), String> {
        if meta.size != self.length {
            return Err(format!("{} bytes were announced first, now {}", self.length, meta.size));
        }
        match (&self.etag, &meta.e_tag) {
            (Some(first), Some(now)) if first != now => Err(format!("its ETag was {first} and is now {now}")),
            _ => Ok(()),
        }
    }

    fn io_error(&self, failure: Failure) -> io::Error {
        let address = &self.address;
        io::Error::new(
            io::ErrorKind::NetworkDown,
            match failure {
                Failure::NoRanges => format!("{address}: the server gives no ranges of it"),
                Failure::Changed(how) => {
                    format!(
                        "{address}: it changed while it was read: {how}; run again when it stays as it is"
                    )
                }
                Failure::Other(problem) => {
                    let problem = without_query(&problem);
                    format!("{address}: cannot be fetched, after {ATTEMPTS} attempts: {problem}")
                }
            },
        )
    }
}

async fn pause(attempt: u32) {
    tokio::time::sleep(FIRST_PAUSE * 2u32.pow(attempt.min(7))).await;
}

enum Failure {
    /// The server answers a range with the whole.
    NoRanges,
    Changed(String),
    Other(String),
}

impl Failure {
    fn of(error: object_store::Error) -> Failure {
        match error {
            object_store::Error::NotSupported { .. } => Failure::NoRanges,
            object_store::Error::Precondition { .. } => {
                Failure::Changed("another version has taken its place".to_string())
            }
            other => Failure::Other(other.to_string()),
        }
    }
}

/// The bytes of an object, blocking.
pub struct RemoteStream {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    held: Bytes,
    /// The error that ended the stream, given again to whoever asks again.
    failed: Option<String>,
}

impl Read for RemoteStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(message) = &self.failed {
            return Err(io::Error::new(io::ErrorKind::NetworkDown, message.clone()));
        }
        while self.held.is_empty() {
            match self.receiver.blocking_recv() {
                Some(Ok(bytes)) => self.held = bytes,
                Some(Err(error)) => {
                    self.failed = Some(error.to_string());
                    return Err(error);
                }
                None => return Ok(0),
            }
        }
        let read = self.held.len().min(buffer.len());
        self.held.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}
