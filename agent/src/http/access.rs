//! Who may ask: the bearer token and the TLS identity, read from their files.

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Settings;

/// Shorter tokens can be guessed.
const SHORTEST_TOKEN: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("{file}: cannot be read: {source}")]
    Read { file: PathBuf, source: io::Error },
    #[error(
        "{file}: a token of at least {SHORTEST_TOKEN} printable characters is needed; `openssl rand -hex 24` makes one"
    )]
    Token { file: PathBuf },
    #[error("{file}: {why}")]
    Pem { file: PathBuf, why: String },
    #[error("certificate {cert} and key {key} do not make a TLS server: {source}")]
    Tls { cert: PathBuf, key: PathBuf, source: rustls::Error },
}

/// Clones share the TLS identity.
#[derive(Clone, Default)]
pub struct Access {
    token: Option<String>,
    pub tls: Option<Arc<ServerConfig>>,
}

impl Access {
    /// Reads the files that the settings name.
    pub fn load(settings: &Settings) -> Result<Access, AccessError> {
        let token = settings.token_file.as_deref().map(read_token).transpose()?;
        let tls = match (&settings.tls_cert, &settings.tls_key) {
            (Some(cert), Some(key)) => Some(Arc::new(tls(cert, key)?)),
            _ => None,
        };
        Ok(Access { token, tls })
    }

    #[cfg(test)]
    pub fn with_token(token: &str) -> Access {
        Access { token: Some(token.to_owned()), tls: None }
    }

    pub fn needs_token(&self) -> bool {
        self.token.is_some()
    }

    /// Takes as long for a token that is wrong at its end as for one that is wrong at its start.
    pub fn allows(&self, given: Option<&str>) -> bool {
        let Some(token) = &self.token else { return true };
        let given = given.unwrap_or_default();
        let mut differ = u8::from(given.len() != token.len());
        for (i, byte) in token.bytes().enumerate() {
            differ |= byte ^ given.as_bytes().get(i).copied().unwrap_or(!byte);
            differ = black_box(differ);
        }
        differ == 0
    }
}

fn read_token(file: &Path) -> Result<String, AccessError> {
    let text = fs::read_to_string(file).map_err(|source| AccessError::Read { file: file.to_owned(), source })?;
    let token = text.trim();
    if token.len() < SHORTEST_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(AccessError::Token { file: file.to_owned() });
    }
    Ok(token.to_owned())
}

fn tls(cert: &Path, key: &Path) -> Result<ServerConfig, AccessError> {
    let read = |file: &Path| fs::read(file).map_err(|source| AccessError::Read { file: file.to_owned(), source });
    let pem = |file: &Path, why: &dyn ToString| AccessError::Pem { file: file.to_owned(), why: why.to_string() };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&read(cert)?).collect::<Result<_, _>>().map_err(|e| pem(cert, &e))?;
    if chain.is_empty() {
        return Err(pem(cert, &"holds no certificate in PEM form"));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| pem(key, &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let refused = |source| AccessError::Tls { cert: cert.to_owned(), key: key.to_owned(), source };
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(refused)
}
