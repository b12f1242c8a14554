//! Engines elsewhere behind TLS: whose certificates are believed.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serving::{ServeSettings, UpstreamSettings, try_upstreams};

use crate::client::{Options, TestServer};
use crate::stub::Stub;
use crate::upstreams::{CHAT, chat, upstream};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn written(folder: &Path, authority: &Authority) -> PathBuf {
    let path = folder.join("house.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    path
}

/// An engine whose certificate is for this name, until the beginning of that year.
fn engine(authority: &Authority, name: &str, until: i32) -> Stub {
    let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Stub::start_tls(config)
}

fn settings(stub: &Stub, ca: Option<PathBuf>) -> UpstreamSettings {
    let url = format!("https://localhost:{}/v1", stub.address.port());
    UpstreamSettings { url, ca, ..upstream("gpu", stub.address) }
}

#[test]
fn an_engine_is_believed_by_the_certificates_of_the_house_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (house, stranger) = (authority(), authority());
    let ca = written(folder.path(), &house);
    let good = engine(&house, "localhost", 2100);
    let another = engine(&house, "other.example", 2100);
    let expired = engine(&house, "localhost", 2021);
    let unknown = engine(&stranger, "localhost", 2100);
    for (what, settings, trouble) in [
        ("good", settings(&good, Some(ca.clone())), None),
        ("another host's", settings(&another, Some(ca.clone())), Some("not valid for name")),
        ("expired", settings(&expired, Some(ca.clone())), Some("expired")),
        ("a stranger's", settings(&unknown, Some(ca.clone())), Some("certificate")),
        ("without the house's", settings(&good, None), Some("certificate")),
    ] {
        let tried = try_upstreams(std::slice::from_ref(&settings)).unwrap().remove(0).found;
        let settings = ServeSettings { upstreams: vec![settings], ..Options::default().settings };
        let server = TestServer::start(Options { settings, ..Options::default() });
        let answer = server.post(CHAT, chat("hello"));
        match trouble {
            None => {
                answer.check_ok();
                assert!(tried.is_ok(), "{what}: {tried:?}");
            }
            Some(trouble) => {
                assert_eq!(answer.check(503, None).json()["error"]["code"], "upstream_unavailable", "{what}");
                let problem = tried.unwrap_err();
                assert!(problem.to_lowercase().contains(trouble), "{what}: {problem}");
            }
        }
    }
    assert_eq!([&another, &expired, &unknown].map(Stub::requests), [0; 3], "nothing was sent");
    // TLS towards one who speaks none, and none towards one who speaks TLS.
    let plain = Stub::start();
    let settings = [settings(&plain, Some(ca)), upstream("clear", good.address)];
    assert!(try_upstreams(&settings).unwrap().iter().all(|tried| tried.found.is_err()));
}
