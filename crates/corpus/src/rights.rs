//! Rights come first: no text is looked at before it is known that it may be used.
//!
//! In this order: the opt-out ledger, the domain block list, reservations in the document's own metadata, what its site
//! says (robots.txt, TDMRep), and the licence allow-list. All of it is applied again at each build.

use std::collections::HashSet;

use documents::Document;

use crate::addresses::host_of;
use crate::block_list::BlockList;
use crate::error::Error;
use crate::opt_outs::Ledger;
use crate::reason::{Drop, Reason};
use crate::reservation;
use crate::settings::Settings;
use crate::site_rules::SiteRules;

/// The rules of one build, ready to be asked about many documents.
pub struct Rights {
    ledger: Ledger,
    blocked: BlockList,
    sites: SiteRules,
    licenses: HashSet<String>,
    default_license: String,
}

/// A document dropped for rights; `date` is the request's, or the document's own where no request was made.
#[derive(Debug, PartialEq)]
pub struct RightsDrop {
    pub drop: Drop,
    pub date: Option<String>,
}

impl Rights {
    pub fn new(settings: &Settings) -> Result<Rights, Error> {
        let ledger = match &settings.opt_outs {
            Some(path) => Ledger::read(path)?,
            None => Ledger::default(),
        };
        let blocked = match &settings.blocked_domains {
            Some(path) => BlockList::read(path)?,
            None => BlockList::default(),
        };
        let mut sites = SiteRules::new(&settings.robots_agents, &settings.own_agent);
        for path in &settings.robots {
            sites.read(path)?;
        }
        let licenses = settings.licenses.iter().map(|license| license.trim().to_lowercase()).collect();
        Ok(Rights { ledger, blocked, sites, licenses, default_license: settings.default_license.clone() })
    }

    /// Takes in a site's rules that came among the documents.
    pub fn add_site_file(&mut self, document: &Document) {
        self.sites.add(document);
    }

    /// Nothing where the document may be used, else the reason.
    pub fn check(&self, document: &Document) -> Option<RightsDrop> {
        if let Some(request_date) = self.ledger.names(document) {
            let drop = Drop::new(Reason::OptedOut);
            return Some(RightsDrop { drop, date: Some(request_date.to_string()) });
        }
        self.fault(document).map(|reason| RightsDrop { drop: Drop::new(reason), date: document.date.clone() })
    }

    fn fault(&self, document: &Document) -> Option<Reason> {
        let url = document.url.as_deref();
        if url.and_then(host_of).is_some_and(|host| self.blocked.blocks(&host)) {
            return Some(Reason::DomainBlocked);
        }
        reservation::of_document(document)
            .or_else(|| self.sites.fault(url?))
            .or_else(|| self.license_fault(document))
    }

    fn license_fault(&self, document: &Document) -> Option<Reason> {
        let named = document.license.as_deref().unwrap_or(&self.default_license).trim();
        if named.is_empty() {
            return Some(Reason::LicenseMissing);
        }
        (!self.allows(named)).then_some(Reason::LicenseNotAllowed)
    }

    /// SPDX expressions: one licence of an `OR` is enough, all of an `AND` are needed. What cannot be understood is not
    /// allowed.
    fn allows(&self, expression: &str) -> bool {
        expression.split(" OR ").any(|alternative| {
            alternative.split(" AND ").all(|license| {
                let license = license.trim().trim_matches(['(', ')']).trim();
                let license = license_of_address(license).unwrap_or_else(|| license.to_lowercase());
                self.licenses.contains(&license)
            })
        })
    }
}

/// The SPDX identifier (lower case) behind a Creative Commons address.
fn license_of_address(address: &str) -> Option<String> {
    let path = address
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_start_matches("www.")
        .strip_prefix("creativecommons.org/")?;
    let mut parts = path.split('/');
    match (parts.next()?, parts.next()?, parts.next()?) {
        ("licenses", kind, version) => Some(format!("cc-{kind}-{version}").to_lowercase()),
        ("publicdomain", "zero", version) => Some(format!("cc0-{version}")),
        ("publicdomain", "mark", version) => Some(format!("cc-pdm-{version}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(url: &str, license: &str) -> Document {
        Document { url: Some(url.into()), license: Some(license.into()), ..Document::new("x-1", "") }
    }

    #[test]
    fn licences_are_spdx_expressions_or_creative_commons_addresses() {
        let rights = Rights::new(&Settings::default()).unwrap();
        let check = |license: &str, expected: Option<Reason>| {
            let found = rights.check(&document("https://a.example/", license)).map(|fault| fault.drop.reason);
            assert_eq!(found, expected, "{license}");
        };
        check("CC0-1.0", None);
        check("cc-by-4.0", None);
        check("GPL-3.0-only OR MIT", None);
        check("MIT AND Apache-2.0", None);
        check("https://creativecommons.org/licenses/by-sa/4.0/deed.mt", None);
        check("http://creativecommons.org/publicdomain/zero/1.0/", None);
        check("MIT AND CC-BY-NC-4.0", Some(Reason::LicenseNotAllowed));
        check("CC-BY-NC-ND-4.0", Some(Reason::LicenseNotAllowed));
        check("https://creativecommons.org/licenses/by-nc/4.0/", Some(Reason::LicenseNotAllowed));
        check("all rights reserved", Some(Reason::LicenseNotAllowed));
        check(" ", Some(Reason::LicenseMissing));
        assert_eq!(rights.check(&Document::new("1", "")).unwrap().drop.reason, Reason::LicenseMissing);
    }

    #[test]
    fn each_rule_has_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let robots = "{\"id\":\"r\",\"url\":\"https://robots.example/robots.txt\",\"text\":\"User-agent: CCBot\\nDisallow: /\"}\n";
        let settings = Settings {
            opt_outs: Some(put(
                "opt-outs.jsonl",
                "{\"date\":\"2026-01-31\",\"domain\":\"out.example\",\"reference\":\"1\"}\n",
            )),
            blocked_domains: Some(put("blocked.txt", "# not ours to use\nblocked.example\n")),
            robots: vec![put("robots.jsonl", robots)],
            ..Settings::default()
        };
        let rights = Rights::new(&settings).unwrap();
        let check = |url: &str, expected: Option<(Reason, Option<&str>)>| {
            let dated = Document { date: Some("2020-01-01".into()), ..document(url, "MIT") };
            let found = rights.check(&dated);
            let found = found.as_ref().map(|fault| (fault.drop.reason, fault.date.as_deref()));
            assert_eq!(found, expected, "{url}");
        };
        check("https://a.out.example/x", Some((Reason::OptedOut, Some("2026-01-31"))));
        check("https://www.blocked.example/x", Some((Reason::DomainBlocked, Some("2020-01-01"))));
        check("https://robots.example/x", Some((Reason::RobotsDisallowed, Some("2020-01-01"))));
        check("https://free.example/x", None);
        let mut reserved = document("https://free.example/x", "MIT");
        reserved.metadata.insert("tdm-reservation".into(), 1.into());
        assert_eq!(rights.check(&reserved).unwrap().drop.reason, Reason::TdmReserved);
    }
}
