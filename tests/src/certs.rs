//! Certificates for the TLS faults: good, expired, self-signed, and for another name.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::guard::tool;

/// The folder with `ca.pem` and `{good,expired,self,other}.{pem,key}`.
pub struct Certs(PathBuf);

impl Certs {
    pub fn make(root: &Path) -> Result<Self> {
        let dir = root.join("certs");
        std::fs::create_dir_all(&dir)?;
        let certs = Self(dir);
        certs.own("ca", "/CN=Lab CA", &[])?;
        certs.own("self", "/CN=secure.test", &["-addext", "subjectAltName=DNS:secure.test"])?;
        certs.signed("good", "secure.test", &["-days", "30"])?;
        certs.signed("other", "elsewhere.test", &["-days", "30"])?;
        // -days 0 would be valid for this second; a negative number is refused by some versions.
        certs.signed("expired", "secure.test", &["-not_before", "20200101000000Z", "-not_after", "20200201000000Z"])?;
        for name in ["ca", "self", "good", "other", "expired"] {
            tool("chmod", &["0644", &certs.key(name), &certs.cert(name)])?;
        }
        Ok(certs)
    }

    pub fn cert(&self, name: &str) -> String {
        self.0.join(format!("{name}.pem")).display().to_string()
    }

    pub fn key(&self, name: &str) -> String {
        self.0.join(format!("{name}.key")).display().to_string()
    }

    fn own(&self, name: &str, subject: &str, more: &[&str]) -> Result<()> {
        let (key, cert) = (self.key(name), self.cert(name));
        let curve = "ec_paramgen_curve:prime256v1";
        let mut args = vec!["req", "-x509", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-days", "30"];
        args.extend(["-subj", subject, "-keyout", &key, "-out", &cert]);
        args.extend(more);
        tool("openssl", &args).map(drop)
    }

    fn signed(&self, name: &str, host: &str, dates: &[&str]) -> Result<()> {
        let (key, cert, request) = (self.key(name), self.cert(name), self.cert(&format!("{name}.request")));
        let curve = "ec_paramgen_curve:prime256v1";
        let subject = format!("/CN={host}");
        let san = format!("subjectAltName=DNS:{host}");
        let make = ["req", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-subj", &subject, "-addext", &san];
        tool("openssl", &[&make[..], &["-keyout", &key, "-out", &request]].concat())?;
        if dates[0] == "-days" {
            let (ca, ca_key) = (self.cert("ca"), self.key("ca"));
            let sign = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-copy_extensions", "copy"];
            return tool("openssl", &[&sign[..], dates, &["-out", &cert]].concat()).map(drop);
        }
        self.signed_with_dates(&request, &cert, dates)
    }

    /// `openssl x509` of Debian 12 has no dates; `openssl ca` has, and wants a folder with a database.
    fn signed_with_dates(&self, request: &str, cert: &str, dates: &[&str]) -> Result<()> {
        let dir = self.0.display();
        std::fs::write(self.0.join("index.txt"), "")?;
        std::fs::write(self.0.join("serial"), "1000\n")?;
        let config = format!(
            "[ca]\ndefault_ca=lab\n[lab]\ndir={dir}\ndatabase={dir}/index.txt\nserial={dir}/serial\nnew_certs_dir={dir}\n\
             default_md=sha256\npolicy=any\ncopy_extensions=copy\n[any]\ncommonName=supplied\n"
        );
        let path = self.0.join("ca.conf").display().to_string();
        std::fs::write(&path, config)?;
        let (ca, ca_key) = (self.cert("ca"), self.key("ca"));
        let start = dates[1];
        let end = dates[3];
        let sign = ["ca", "-batch", "-config", &path, "-cert", &ca, "-keyfile", &ca_key, "-in", request, "-out", cert];
        tool("openssl", &[&sign[..], &["-startdate", start, "-enddate", end, "-notext"]].concat()).map(drop)
    }
}
