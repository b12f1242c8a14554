//! Client certificates: whose are taken, and what they permit.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use provenance::digest::sha256;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serving::{
    ClientCertificates, ClientIdentity, Role, ServeSettings, TenantPolicy, TenantStore, TlsSettings,
};

use crate::client::{Answer, Options, TestServer, request_text};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

struct Client {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

fn client(authority: &Authority, name: &str, serial: u64) -> Client {
    let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
    params.serial_number = Some(SerialNumber::from(serial));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    Client { certificate: certificate.der().clone(), key: key.serialize_der() }
}

struct Place {
    _folder: tempfile::TempDir,
    tls: TlsSettings,
    server_certificate: CertificateDer<'static>,
}

fn place(clients: &Authority, mode: ClientCertificates, rules: Vec<ClientIdentity>) -> Place {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut tls = TlsSettings::new(
        write("chain.pem", own.cert.pem()),
        write("key.pem", own.signing_key.serialize_pem()),
    );
    tls.client_ca = Some(write("clients.pem", clients.pem()));
    tls.client_certificates = mode;
    tls.clients = rules;
    Place { tls, server_certificate: own.cert.der().clone(), _folder: folder }
}

fn start(place: &Place) -> TestServer {
    let mut options = Options::default();
    options.settings.tls = Some(place.tls.clone());
    let server = TestServer::start(options);
    let tenants = TenantStore::open(&server.state).unwrap();
    tenants.new_tenant("Amt", &TenantPolicy::default(), 0).unwrap();
    server
}

/// The answer, or that there was none.
fn ask(
    place: &Place,
    server: &TestServer,
    client: Option<&Client>,
    path: &str,
    headers: &str,
) -> Result<Answer, String> {
    let mut roots = RootCertStore::empty();
    roots.add(place.server_certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let key = PrivateKeyDer::try_from(client.key.clone()).unwrap();
            builder.with_client_auth_cert(vec![client.certificate.clone()], key).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream =
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), server.connect());
    let method = if headers.contains("Origin") { "DELETE" } else { "GET" };
    stream
        .write_all(request_text(method, path, headers, "").as_bytes())
        .map_err(|error| error.to_string())?;
    // TLS 1.3 tells of a refused certificate with the first thing that is read.
    let mut first = [0];
    std::io::Read::read_exact(&mut stream, &mut first).map_err(|error| error.to_string())?;
    Ok(Answer::read(std::io::Read::chain(&first[..], stream)))
}

fn rule(fingerprint: Option<String>, san: Option<&str>, role: Role) -> ClientIdentity {
    ClientIdentity { fingerprint, san: san.map(String::from), tenant: "Amt".to_string(), role }
}

#[test]
fn certificates_permit_what_the_rules_say() {
    let trusted = authority();
    let [user, metrics, other] =
        [("schreibdienst.amt.example", 1), ("monitor.amt.example", 2), ("fremd.amt.example", 3)]
            .map(|(name, serial)| client(&trusted, name, serial));
    let stranger = client(&authority(), "schreibdienst.amt.example", 4);
    let digits = sha256(&metrics.certificate).to_string().to_uppercase();
    let colons: Vec<&str> = (0..32).map(|byte| &digits[2 * byte..2 * byte + 2]).collect();
    let rules = vec![
        rule(Some(colons.join(":")), None, Role::Metrics),
        rule(None, Some("Schreibdienst.amt.example"), Role::User),
    ];
    let place = place(&trusted, ClientCertificates::Optional, rules);
    let mut server = start(&place);
    let status = |client: Option<&Client>, path: &str, headers: &str| {
        ask(&place, &server, client, path, headers).map(|answer| answer.status)
    };
    assert_eq!(status(Some(&user), "/v1/models", ""), Ok(200));
    assert_eq!(status(Some(&user), "/admin/v1/keys", ""), Ok(403));
    assert_eq!(status(Some(&metrics), "/v1/models", ""), Ok(403));
    assert_eq!(status(Some(&other), "/v1/models", ""), Ok(401), "trusted, but nobody's");
    assert_eq!(status(None, "/v1/models", ""), Ok(401));
    assert!(status(Some(&stranger), "/v1/models", "").is_err(), "signed by another authority");
    let key = format!("Authorization: Bearer {}\r\n", server.key);
    assert_eq!(status(None, "/admin/v1/keys", &key), Ok(200));
    assert_eq!(status(Some(&user), "/admin/v1/keys", &key), Ok(200), "a key counts before the certificate");
    assert_eq!(status(Some(&user), "/v1/models", "Authorization: Bearer eu-wrong\r\n"), Ok(401));
    let elsewhere = "Origin: https://evil.example\r\n";
    assert_eq!(status(Some(&user), "/session", elsewhere), Ok(403), "another site's page");
    server.stop();
    let fingerprint = sha256(&user.certificate).to_string();
    let named = format!("cert-{}", &fingerprint[..16]);
    assert!(server.audit().iter().any(|event| event["key"] == named.as_str()));
}

#[test]
fn without_a_certificate_nobody_connects_where_one_is_required() {
    let trusted = authority();
    let (good, revoked) = (client(&trusted, "a.amt.example", 1), client(&trusted, "b.amt.example", 2));
    let rules =
        vec![rule(None, Some("a.amt.example"), Role::User), rule(None, Some("b.amt.example"), Role::User)];
    let mut place = place(&trusted, ClientCertificates::Required, rules);
    let entry = RevokedCertParams {
        serial_number: SerialNumber::from(2u64),
        revocation_time: date_time_ymd(2025, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 1, 1),
        next_update: date_time_ymd(4000, 1, 1),
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: vec![entry],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let path = place.tls.certificate.with_file_name("revoked.pem");
    std::fs::write(&path, list.signed_by(&trusted).unwrap().pem().unwrap()).unwrap();
    place.tls.client_crls = vec![path];
    let server = start(&place);
    assert_eq!(ask(&place, &server, Some(&good), "/v1/models", "").map(|answer| answer.status), Ok(200));
    assert!(ask(&place, &server, Some(&revoked), "/v1/models", "").is_err(), "revoked");
    assert!(ask(&place, &server, None, "/healthz", "").is_err(), "none");
}

#[test]
fn rules_for_everyone_and_half_settings_do_not_start() {
    let (own, ca) = (PathBuf::from("a.pem"), Some(PathBuf::from("ca.pem")));
    let base = TlsSettings::new(own.clone(), own);
    let optional = TlsSettings {
        client_ca: ca.clone(),
        client_certificates: ClientCertificates::Optional,
        ..base.clone()
    };
    assert!(optional.check().is_ok());
    for wrong in [
        TlsSettings { client_ca: ca, ..base.clone() },
        TlsSettings { client_certificates: ClientCertificates::Required, ..base.clone() },
        TlsSettings { clients: vec![rule(None, Some("a"), Role::User)], ..base },
        TlsSettings { clients: vec![rule(None, None, Role::User)], ..optional.clone() },
        TlsSettings { clients: vec![rule(Some("ab".into()), None, Role::User)], ..optional },
    ] {
        let settings = ServeSettings { tls: Some(wrong), ..ServeSettings::default() };
        assert!(settings.check().is_err());
    }
}
