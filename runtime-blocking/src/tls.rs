//! TLS, by rustls: whom we trust where we are the client, who we are where we are the server.

use std::io::{self, BufRead, ErrorKind, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mcp_proxy_engine::wire::http::Outgoing;
use mcp_proxy_engine::{Tls, Verify};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig, ServerConnection,
    SignatureScheme,
};

/// How we check the certificates of servers. It fails with a text for people, only for [`Verify::Bundle`].
pub(crate) fn client(verify: &Verify) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    let mut config = match verify {
        Verify::Native => {
            let native = rustls_native_certs::load_native_certs();
            for error in &native.errors {
                log::debug!("some roots of the system cannot be used: {error}");
            }
            roots.add_parsable_certificates(native.certs);
            if roots.is_empty() {
                log::debug!("the system has no roots; the built-in ones are used");
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Verify::Bundle(path) => {
            let certs = certificates(path)?;
            for cert in &certs {
                roots.add(cert.clone()).map_err(|error| format!("{path:?}: {error}"))?;
            }
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| format!("{path:?}: {error}"))?;
            let verifier = Arc::new(Bundle { inner, certs });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        Verify::Nothing => {
            let verifier = Arc::new(Anybody(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Who we are. It fails with a text for people.
pub(crate) fn server(tls: &Tls) -> Result<Arc<ServerConfig>, String> {
    let certs = certificates(&tls.cert)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| match error {
        pem::Error::NoItemsFound => format!("{:?} has no private key", tls.key),
        error => unreadable(&tls.key, &error),
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs, key))
        .map_err(|error| format!("{:?} and {:?} cannot be used: {error}", tls.cert, tls.key))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match certs {
        Ok(certs) if certs.is_empty() => Err(format!("{path:?} has no certificate")),
        Ok(certs) => Ok(certs),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("{path:?} cannot be read: {}", error.kind()),
        error => format!("{path:?} is not a PEM file: {error}"),
    }
}

/// Why a handshake failed; true: the certificate is not trusted.
pub(crate) fn explain(error: &io::Error) -> (bool, String) {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => {
            let why = match why {
                CertificateError::UnknownIssuer => "its issuer is unknown".to_owned(),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "it is not valid yet".to_owned()
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "it is for another name".to_owned()
                }
                CertificateError::Other(other) if is_authority(other) => "it signed itself".to_owned(),
                why => why.to_string(),
            };
            (true, why)
        }
        Some(rustls::Error::InvalidMessage(_)) => (false, "the other side does not speak TLS".to_owned()),
        Some(error) => (false, error.to_string()),
        None if error.kind() == ErrorKind::UnexpectedEof => (false, "the other side closed the connection".to_owned()),
        None => (false, error.kind().to_string()),
    }
}

/// webpki lets no server be an authority; what `openssl req -x509` makes says that it is one.
fn is_authority(error: &OtherError) -> bool {
    // The type of the error is that of a crate that we do not name.
    error.to_string().contains("CaUsedAsEndEntity")
}

/// Trusts what a PEM file has: the certificates that one of it signed, and those in it.
#[derive(Debug)]
struct Bundle {
    inner: Arc<WebPkiServerVerifier>,
    certs: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.inner.verify_server_cert(cert, intermediates, name, ocsp, now) {
            // This very certificate was given to be trusted. Its dates were checked before this error comes; its name was
            // not.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                if is_authority(&other) && self.certs.iter().any(|own| own == cert) =>
            {
                verify_server_name(&ParsedCertificate::try_from(cert)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Trusts anybody, as the user demanded.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The TLS of a connection that we serve. Its reader opens what comes; only the loop takes what is to be sent, so that
/// records leave in the order in which they were sealed.
pub(crate) struct Session(Mutex<ServerConnection>);

/// What a piece of input led to.
#[derive(Default)]
pub(crate) struct Opened {
    /// There are bytes to be sent.
    pub(crate) wants_write: bool,
    /// The client will send nothing more.
    pub(crate) ended: bool,
}

impl Session {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut connection = ServerConnection::new(config)?;
        // What is sealed is taken at once, so nothing piles up in there.
        connection.set_buffer_limit(None);
        Ok(Session(Mutex::new(connection)))
    }

    fn lock(&self) -> MutexGuard<'_, ServerConnection> {
        // No code panics with the lock held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.lock().is_handshaking()
    }

    /// Lends what these bytes contain to `take`. After an error there may be an alert to be sent.
    pub(crate) fn open(&self, mut bytes: &[u8], take: &mut dyn FnMut(&[u8])) -> Result<Opened, ErrorKind> {
        let mut connection = self.lock();
        let mut ended = false;
        while !bytes.is_empty() && !ended {
            connection.read_tls(&mut bytes).map_err(|error| error.kind())?;
            connection.process_new_packets().map_err(|error| {
                log::debug!("a client's TLS is wrong: {error}");
                ErrorKind::InvalidData
            })?;
            let mut reader = connection.reader();
            loop {
                let used = match reader.fill_buf() {
                    Ok([]) => {
                        ended = true;
                        break;
                    }
                    Ok(plain) => {
                        take(plain);
                        plain.len()
                    }
                    // Nothing more for now.
                    Err(_) => break,
                };
                reader.consume(used);
            }
        }
        Ok(Opened { wants_write: connection.wants_write(), ended })
    }

    /// What is to be sent so that the client gets these bytes, after everything that waits to be sent.
    pub(crate) fn seal(&self, bytes: &Outgoing) -> Outgoing {
        let mut connection = self.lock();
        for part in bytes.slices() {
            // It takes everything: there is no limit.
            let _ = connection.writer().write_all(part);
        }
        drain(&mut connection)
    }

    /// The same for the end of what we send.
    pub(crate) fn seal_end(&self) -> Outgoing {
        let mut connection = self.lock();
        connection.send_close_notify();
        drain(&mut connection)
    }
}

fn drain(connection: &mut ServerConnection) -> Outgoing {
    let mut records = Vec::new();
    // A vector takes everything.
    while connection.wants_write() && connection.write_tls(&mut records).is_ok() {}
    Outgoing::new(records)
}
