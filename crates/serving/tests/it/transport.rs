//! TLS and HTTP/2: what is spoken, what is refused, and what a hostile client can hold on to.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, Request};
use h2::client::{Connection, SendRequest};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::{Value, json};
use serving::{TlsSettings, TlsVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Options, PATIENCE, TestServer};
use crate::stub::Stub;
use crate::upstreams::{CHAT, chat, upstream};

/// A certificate for `localhost` in files of a folder, and itself.
pub fn certificate(folder: &Path) -> (TlsSettings, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    let tls = TlsSettings::new(folder.join("chain.pem"), folder.join("key.pem"));
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.private_key, made.signing_key.serialize_pem()).unwrap();
    (tls, made.cert.der().clone())
}

/// A TLS client that trusts one certificate and speaks these versions.
pub async fn connect(
    server: &TestServer,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(server.address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, future).await.expect("in time") })
}

struct Place {
    server: TestServer,
    certificate: CertificateDer<'static>,
    _folder: tempfile::TempDir,
}

fn place(change: impl FnOnce(&mut Options)) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let (tls, certificate) = certificate(folder.path());
    let mut options = Options::default();
    options.settings.tls = Some(tls);
    change(&mut options);
    Place { server: TestServer::start(options), certificate, _folder: folder }
}

const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

type Client = (SendRequest<bytes::Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>);

impl Place {
    async fn http2(&self, builder: &mut h2::client::Builder) -> Client {
        let stream = connect(&self.server, &self.certificate, TLS13, b"h2").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (client, connection): (_, Connection<_, bytes::Bytes>) = builder.handshake(stream).await.unwrap();
        (client, tokio::spawn(connection))
    }

    fn request(&self, method: &str, path: &str) -> Request<()> {
        Request::builder()
            .method(method)
            .uri(format!("https://localhost{path}"))
            .header("authorization", format!("Bearer {}", self.server.key))
            .body(())
            .unwrap()
    }
}

async fn ask(client: &SendRequest<bytes::Bytes>, request: Request<()>, body: &str) -> (u16, String) {
    let mut client = client.clone().ready().await.unwrap();
    let (answer, mut sender) = client.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        sender.send_data(body.to_string().into(), true).unwrap();
    }
    let answer = answer.await.unwrap();
    let (status, mut body) = (answer.status().as_u16(), answer.into_body());
    let mut text = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        text.extend_from_slice(&piece);
    }
    (status, String::from_utf8(text).unwrap())
}

#[test]
fn a_client_of_old_tls_is_refused_unless_the_settings_name_it() {
    let strict = place(|_| {});
    block_on(async {
        assert!(connect(&strict.server, &strict.certificate, TLS12, b"h2").await.is_err(), "a downgrade");
        let stream = connect(&strict.server, &strict.certificate, TLS13, b"http/1.1").await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    });
    let lenient = place(|options| {
        options.settings.tls.as_mut().unwrap().minimum = TlsVersion::Tls12;
    });
    block_on(async {
        let stream = connect(&lenient.server, &lenient.certificate, TLS12, b"http/1.1").await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    });
}

#[test]
fn http2_answers_many_requests_over_one_connection() {
    let place = place(|_| {});
    block_on(async {
        let (client, connection) = place.http2(&mut h2::client::Builder::new()).await;
        let (status, models) = ask(&client, place.request("GET", "/v1/models"), "").await;
        assert_eq!((status, models.contains("toy-backwards")), (200, true));
        let body = json!({"model": "toy", "prompt": "uv", "temperature": 0, "stream": true}).to_string();
        let streams: Vec<_> = (0..8)
            .map(|_| {
                let (client, request, body) =
                    (client.clone(), place.request("POST", "/v1/completions"), body.clone());
                tokio::spawn(async move { ask(&client, request, &body).await })
            })
            .collect();
        for stream in streams {
            let (status, text) = stream.await.unwrap();
            assert!(status == 200 && text.ends_with("data: [DONE]\n\n"), "{status} {text}");
        }
        let stranger = Request::builder().uri("https://localhost/v1/models").body(()).unwrap();
        assert_eq!(ask(&client, stranger, "").await.0, 401);
        drop(client);
        connection.await.unwrap().unwrap();
    });
}

#[test]
fn headers_beyond_the_limit_are_refused_over_http2() {
    let place = place(|options| options.settings.header_limit_bytes = 8 << 10);
    block_on(async {
        let (client, _connection) = place.http2(&mut h2::client::Builder::new()).await;
        let mut request = place.request("GET", "/v1/models");
        for number in 0..40 {
            let name: HeaderName = format!("x-{number}").parse().unwrap();
            request.headers_mut().insert(name, "a".repeat(1_000).parse().unwrap());
        }
        let mut ready = client.clone().ready().await.unwrap();
        let refused = match ready.send_request(request, true) {
            Ok((answer, _)) => match answer.await {
                Ok(answer) => answer.status() == 431,
                Err(_) => true,
            },
            Err(_) => true,
        };
        assert!(refused);
        let (client, _connection) = place.http2(&mut h2::client::Builder::new()).await;
        assert_eq!(ask(&client, place.request("GET", "/v1/models"), "").await.0, 200);
    });
}

#[test]
fn a_flood_of_resets_ends_the_connection() {
    let place = place(|_| {});
    block_on(async {
        let (mut client, connection) = place.http2(&mut h2::client::Builder::new()).await;
        let mut resets = 0;
        // "Rapid reset": a stream costs the client one frame and the server a request.
        while resets < 100_000 {
            let Ok(ready) = client.clone().ready().await else { break };
            client = ready;
            let Ok((answer, mut sender)) = client.send_request(place.request("GET", "/v1/models"), false)
            else {
                break;
            };
            sender.send_reset(h2::Reason::CANCEL);
            drop(answer);
            resets += 1;
            if resets % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert!(resets < 100_000, "the server went along with it");
        drop(client);
        assert!(connection.await.unwrap().is_err(), "it ended with a GOAWAY");
        let (client, _connection) = place.http2(&mut h2::client::Builder::new()).await;
        assert_eq!(ask(&client, place.request("GET", "/healthz"), "").await.0, 200);
    });
}

#[test]
fn http2_connections_that_do_nothing_are_closed() {
    let place = place(|options| {
        (options.settings.header_seconds, options.settings.stalled_client_seconds) = (1, 1);
    });
    block_on(async {
        let (client, connection) = place.http2(&mut h2::client::Builder::new()).await;
        // The client goes on answering pings, and asks nothing.
        assert!(tokio::time::timeout(PATIENCE, connection).await.is_ok(), "an idle connection stays");
        drop(client);
        // It asks, and never opens the window for the answer.
        let (client, connection) = place.http2(h2::client::Builder::new().initial_window_size(0)).await;
        let mut ready = client.ready().await.unwrap();
        let (answer, _) = ready.send_request(place.request("GET", "/v1/models"), true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(tokio::time::timeout(PATIENCE, connection).await.is_ok(), "an answer nobody takes stays");
    });
}

#[test]
fn a_refusal_over_http2_is_whole_though_the_body_comes_later() {
    let place = place(|options| options.settings.body_limit_bytes = 4_096);
    block_on(async {
        let (client, _connection) = place.http2(&mut h2::client::Builder::new()).await;
        let mut stranger = place.request("POST", "/v1/completions");
        stranger.headers_mut().insert("authorization", "Bearer eu-wrong".parse().unwrap());
        for (request, size, expected) in [
            (stranger, 100, 401),
            (place.request("POST", "/v1/completions"), 60_000, 413),
            (place.request("POST", "/nowhere"), 100, 404),
        ] {
            let mut client = client.clone().ready().await.unwrap();
            let (answer, mut sender) = client.send_request(request, false).unwrap();
            // The server has refused by then, and waits for the rest before it says so.
            tokio::time::sleep(Duration::from_millis(100)).await;
            sender.send_data(vec![b'a'; size].into(), true).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), expected);
            let mut body = answer.into_body();
            let mut text = Vec::new();
            while let Some(piece) = body.data().await {
                text.extend_from_slice(&piece.expect("no reset"));
            }
            assert!(serde_json::from_slice::<Value>(&text).unwrap()["error"]["message"].is_string());
        }
    });
}

#[test]
fn a_slow_body_over_http2_is_cut() {
    let place = place(|options| options.settings.body_seconds = 1);
    block_on(async {
        let (client, _connection) = place.http2(&mut h2::client::Builder::new()).await;
        let mut client = client.ready().await.unwrap();
        let (answer, mut sender) =
            client.send_request(place.request("POST", "/v1/completions"), false).unwrap();
        sender.send_data("{\"model\":".into(), false).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 408);
    });
}

/// Over HTTP/2 a body is as long as its frames say. A head that says something else would make two requests of one for an engine
/// that is asked over HTTP/1.1.
#[test]
fn a_length_that_is_not_the_bodys_is_refused_over_http2() {
    let stub = Stub::start();
    let place = place(|options| options.settings.upstreams = vec![upstream("gpu", stub.address)]);
    block_on(async {
        let body = chat("hello").to_string();
        for length in [0, 5, body.len() - 1, body.len() + 1, 1 << 40] {
            let (client, _connection) = place.http2(&mut h2::client::Builder::new()).await;
            let mut request = place.request("POST", CHAT);
            request.headers_mut().insert("content-length", length.into());
            let (answer, mut sender) = client.ready().await.unwrap().send_request(request, false).unwrap();
            let _ = sender.send_data(body.clone().into(), true);
            let is_refused = answer.await.map_or(true, |answer| answer.status().is_client_error());
            assert!(is_refused, "{length} for {}", body.len());
        }
        assert_eq!(stub.requests(), 0, "nothing of it reaches an engine");
        let (client, _connection) = place.http2(&mut h2::client::Builder::new()).await;
        assert_eq!(ask(&client, place.request("POST", CHAT), &body).await.0, 200);
    });
    assert_eq!(stub.requests(), 1);
}

/// Each export of the audit log keeps a thread while its client takes what it asked for. Those threads are few, and prompts are
/// encoded on them: somebody with a key for the log alone must not stop the others' answers.
#[test]
fn exports_that_nobody_takes_leave_threads_for_prompts() {
    let place = place(|options| options.settings.stalled_client_seconds = 120);
    let log = place.server.state.join("audit/audit-000001.jsonl");
    block_on(async {
        let (client, _connection) = place.http2(&mut h2::client::Builder::new()).await;
        // More than what waits on the way of two exports.
        while std::fs::metadata(&log).unwrap().len() < 600_000 {
            let asked: Vec<_> = (0..32)
                .map(|_| {
                    let (client, request) = (client.clone(), place.request("GET", "/readyz"));
                    tokio::spawn(async move { ask(&client, request, "").await.0 })
                })
                .collect();
            for asked in asked {
                assert_eq!(asked.await.unwrap(), 200);
            }
        }
        let export = || place.request("GET", "/admin/v1/audit");
        let (slow, connection) = place.http2(h2::client::Builder::new().initial_window_size(0)).await;
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut slow = slow.clone().ready().await.unwrap();
            let answer = slow.send_request(export(), true).unwrap().0.await.unwrap();
            assert_eq!(answer.status(), 200);
            held.push(answer);
        }
        for _ in 0..10 {
            let (status, text) = ask(&client, export(), "").await;
            assert!(status == 429 && text.contains("exports_busy"), "{status}");
        }
        let body = json!({"model": "toy", "prompt": "uv", "max_tokens": 1}).to_string();
        assert_eq!(ask(&client, place.request("POST", "/v1/completions"), &body).await.0, 200);
        drop((held, slow));
        connection.abort();
        while ask(&client, export(), "").await.0 == 429 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn http2_is_not_spoken_in_the_clear() {
    let server = TestServer::start(Options::default());
    block_on(async {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let spoken = match h2::client::handshake(stream).await {
            Ok((mut client, connection)) => {
                let _connection = tokio::spawn(connection);
                let request = Request::builder().uri("http://localhost/healthz").body(()).unwrap();
                match client.send_request(request, true) {
                    Ok((answer, _)) => answer.await.is_ok(),
                    Err(_) => false,
                }
            }
            Err(_) => false,
        };
        assert!(!spoken);
        let upgrade =
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
        let answer = server.ask_with("GET", "/healthz", upgrade, "");
        assert_eq!(answer.status, 200, "the wish to upgrade is not heard");
        let health: Value = answer.json();
        assert_eq!(health["status"], "ok");
    });
}
