//! TLS from PEM files, with `rustls` and the `ring` provider, which is named here and nowhere taken from the process:
//! TLS 1.3 first, TLS 1.2 for clients that know no better, nothing older.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::ServingError;
use crate::settings::TlsSettings;

/// Reads certificate chain and key, and checks that they belong together.
pub fn server_config(settings: &TlsSettings) -> Result<Arc<ServerConfig>, ServingError> {
    let trouble = |path: &Path, problem: String| ServingError::Tls { path: path.to_path_buf(), problem };
    let path = &settings.certificate;
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| trouble(path, format!("expected certificates in PEM: {error}")))?;
    if chain.is_empty() {
        return Err(trouble(path, "expected at least one certificate in PEM, found none".to_string()));
    }
    let path = &settings.private_key;
    let key = PrivateKeyDer::from_pem_file(path)
        .map_err(|error| trouble(path, format!("expected a private key in PEM: {error}")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| trouble(path, format!("certificate and key do not work together: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
