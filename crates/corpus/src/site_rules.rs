//! What sites say about all their pages: robots.txt and `/.well-known/tdmrep.json`, by site.
//!
//! They come from the settings' files: WARC or JSON lines of documents whose address is that of such a file, or a folder
//! laid out as a mirror of the web (`<host>/robots.txt`, `<host>/.well-known/tdmrep.json`). Of several for one site the
//! latest counts, so that today's robots.txt can be laid over a crawl of years ago; of several of one date, all.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use documents::{Document, InputFile, ReadOptions, read_documents};
use provenance::digest::{files_below_with_links, join};
use rayon::prelude::*;

use crate::addresses::{ascii_domain, path_of, site_of};
use crate::error::Error;
use crate::reason::Reason;
use crate::reservation::TdmRules;
use crate::robots::{Answer, Robots};
use crate::team::Team;

const ROBOTS_PATH: &str = "/robots.txt";
const TDM_PATH: &str = "/.well-known/tdmrep.json";

/// The rules of all sites that are known.
#[derive(Debug, Default)]
pub struct SiteRules {
    agents: Vec<String>,
    own_agent: String,
    sites: HashMap<String, Site>,
}

#[derive(Debug, Default)]
struct Site {
    robots: Dated<Robots>,
    tdm: Dated<TdmRules>,
}

/// The latest of several files.
#[derive(Debug)]
struct Dated<T> {
    date: String,
    files: Vec<T>,
}

impl<T> Default for Dated<T> {
    fn default() -> Dated<T> {
        Dated { date: String::new(), files: Vec::new() }
    }
}

impl<T> Dated<T> {
    fn add(&mut self, date: &str, file: T) {
        if date > self.date.as_str() {
            self.date = date.to_string();
            self.files.clear();
        }
        if date == self.date {
            self.files.push(file);
        }
    }
}

/// Whether a document is a site's rules and no text, as archives of the web hold them.
pub fn is_site_file(document: &Document) -> bool {
    let kind = document.metadata.get("kind").and_then(|kind| kind.as_str());
    kind.is_some_and(|kind| matches!(kind, "robots.txt" | "tdmrep.json"))
}

/// The rules that stand in web archives among the inputs. They have to be known before the first page is looked at, so the
/// archives are read once more for them, without unpacking what is in their other records.
pub fn gather(inputs: &[PathBuf], team: &Team) -> Result<Vec<Document>, Error> {
    let files = documents::list_input_files(inputs)?;
    let archives: Vec<&InputFile> = files.iter().filter(|file| is_archive(&file.name)).collect();
    if archives.is_empty() {
        return Ok(Vec::new());
    }
    let path = team.scratch.join("site-rules.jsonl");
    team.once(&path, || {
        team.context.progress.begin("read robots.txt", Some(archives.len() as u64), "archives");
        let lines = archives.par_iter().map(|file| {
            team.context.cancellation.check()?;
            let lines = site_files_of(file)?;
            team.context.progress.advance(1);
            Ok(lines)
        });
        let lines: Vec<String> = lines.collect::<Result<_, Error>>()?;
        team.context.progress.end();
        team.commit(&path, lines.concat().as_bytes())
    })?;
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let documents = text
        .lines()
        .map(|line| Document::from_json(line).map_err(|_| Error::BadBlock { path: path.clone() }));
    documents.collect()
}

/// The site files of an archive as JSON lines. Damage to it is reported when its pages are read.
fn site_files_of(file: &InputFile) -> Result<String, Error> {
    let mut lines = String::new();
    let records = match documents::open_input(file, ReadOptions::default()) {
        Ok(records) => records,
        Err(error) if error.is_damage() => return Ok(lines),
        Err(error) => return Err(error.into()),
    };
    for record in records {
        match record {
            Ok(record) if record.is_site_file() => {
                if let Ok(document) = record.parse().document {
                    lines.push_str(&document.to_json());
                    lines.push('\n');
                }
            }
            Ok(_) => {}
            Err(error) if error.is_damage() => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(lines)
}

fn is_archive(name: &str) -> bool {
    name.trim_end_matches(".gz").trim_end_matches(".zst").ends_with(".warc")
}

impl SiteRules {
    /// No rules yet; `agents` and `own_agent` are those of the settings.
    pub fn new(agents: &[String], own_agent: &str) -> SiteRules {
        SiteRules { agents: agents.to_vec(), own_agent: own_agent.to_string(), sites: HashMap::new() }
    }

    /// Takes in the rules that stand in a file or folder.
    pub fn read(&mut self, path: &Path) -> Result<(), Error> {
        let before = self.sites.len();
        match path.is_dir() {
            true => self.read_folder(path)?,
            false => self.read_records(path)?,
        }
        match self.sites.len() > before {
            true => Ok(()),
            false => Err(wrong(
                path,
                "holds no robots.txt and no tdmrep.json: expected a folder with `<host>/robots.txt`, or WARC or JSON lines with the `url` of such files",
            )),
        }
    }

    fn read_folder(&mut self, folder: &Path) -> Result<(), Error> {
        let names = files_below_with_links(folder)
            .map_err(|source| Error::Read { path: folder.to_path_buf(), source })?;
        for name in names {
            let path = join(folder, &name);
            let parts: Vec<&str> = name.split('/').collect();
            let (host, kind) = match parts[..] {
                [.., host, "robots.txt"] => (host, ROBOTS_PATH),
                [.., host, ".well-known", "tdmrep.json"] => (host, TDM_PATH),
                _ if is_read_as_records(&name) => {
                    self.read_records(&path)?;
                    continue;
                }
                _ => {
                    return Err(wrong(
                        &path,
                        "expected `<host>/robots.txt`, `<host>/.well-known/tdmrep.json`, WARC or JSON lines",
                    ));
                }
            };
            let bytes = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
            self.add_file(&ascii_domain(host), kind, "", &String::from_utf8_lossy(&bytes))
                .map_err(|problem| wrong(&path, &problem))?;
        }
        Ok(())
    }

    fn read_records(&mut self, path: &Path) -> Result<(), Error> {
        for record in read_documents(&[path.to_path_buf()], ReadOptions::default())? {
            let Ok(document) = record?.document else { continue };
            self.add(&document);
        }
        Ok(())
    }

    /// Takes in a document that is a site's rules; others are passed over. A TDMRep file that is no JSON says nothing.
    pub fn add(&mut self, document: &Document) {
        let Some(url) = &document.url else { return };
        if let Some(site) = site_of(url) {
            let date = document.date.as_deref().unwrap_or_default();
            let text = match document.metadata.get("http-status").and_then(|status| status.as_u64()) {
                None | Some(200..=299) => document.text.as_str(),
                // There is no such file: no rules, from this day on (RFC 9309, 2.3.1.3).
                Some(400..=499) => "[]",
                // The server could not say.
                Some(_) => return,
            };
            // A page under this address that is no such file says nothing: there is nobody to report it to.
            self.add_file(&site, path_of(url), date, text).ok();
        }
    }

    fn add_file(&mut self, site: &str, path: &str, date: &str, text: &str) -> Result<(), String> {
        match path {
            ROBOTS_PATH => {
                let mut robots = Robots::parse(text);
                robots.keep(&self.agents, &self.own_agent);
                self.sites.entry(site.to_string()).or_default().robots.add(date, robots);
            }
            TDM_PATH => {
                let rules = TdmRules::parse(text)?;
                self.sites.entry(site.to_string()).or_default().tdm.add(date, rules);
            }
            _ => {}
        }
        Ok(())
    }

    /// Why the page at an address may not be used, as far as its site says.
    pub fn fault(&self, url: &str) -> Option<Reason> {
        if self.sites.is_empty() {
            return None;
        }
        let site = self.sites.get(&site_of(url)?)?;
        let path = path_of(url);
        let answers =
            site.robots.files.iter().map(|robots| robots.answer(&self.agents, &self.own_agent, path));
        for answer in answers {
            match answer {
                Answer::Free => {}
                Answer::Disallowed => return Some(Reason::RobotsDisallowed),
                Answer::Reserved => return Some(Reason::TrainingReserved),
            }
        }
        site.tdm.files.iter().any(|rules| rules.reserves(path)).then_some(Reason::TdmReserved)
    }
}

fn is_read_as_records(name: &str) -> bool {
    let plain = name.trim_end_matches(".gz").trim_end_matches(".zst");
    [".jsonl", ".ndjson", ".warc"].iter().any(|end| plain.ends_with(end))
}

fn wrong(path: &Path, problem: &str) -> Error {
    Error::SiteRules { path: PathBuf::from(path), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(url: &str, date: &str, text: &str) -> Document {
        Document { url: Some(url.into()), date: Some(date.into()), ..Document::new("r", text) }
    }

    #[test]
    fn the_latest_rules_of_a_site_count() {
        let mut rules = SiteRules::new(&["GPTBot".to_string()], "");
        let robots = "https://a.example/robots.txt";
        rules.add(&record(robots, "2013-01-01", "User-agent: GPTBot\nDisallow: /"));
        assert_eq!(rules.fault("http://a.example/page"), Some(Reason::RobotsDisallowed));
        rules.add(&record(robots, "2025-01-01", "User-agent: GPTBot\nDisallow: /news"));
        rules.add(&record(robots, "2014-01-01", "User-agent: GPTBot\nDisallow: /"));
        assert_eq!(rules.fault("http://a.example/page"), None);
        assert_eq!(rules.fault("http://a.example/news/1"), Some(Reason::RobotsDisallowed));
        assert_eq!(rules.fault("http://b.example/news/1"), None);
        assert_eq!(rules.fault("http://a.example:8080/news/1"), None);
        rules.add(&record(robots, "2025-01-01", "User-agent: GPTBot\nDisallow: /p"));
        assert_eq!(rules.fault("http://a.example/page"), Some(Reason::RobotsDisallowed));
        let mut gone = record(robots, "2026-01-01", "<h1>Not found</h1>");
        gone.metadata.insert("http-status".into(), 404.into());
        rules.add(&gone);
        assert_eq!(rules.fault("http://a.example/page"), None, "a file that is gone rules nothing");
        let tdm = r#"[{"location": "/", "tdm-reservation": 1}]"#;
        rules.add(&record("https://c.example/.well-known/tdmrep.json", "2025-01-01", tdm));
        assert_eq!(rules.fault("https://c.example/x"), Some(Reason::TdmReserved));
    }

    #[test]
    fn rules_are_read_from_folders_and_lines() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("bücher.example/robots.txt", "User-agent: *\nDisallow: /");
        put("b.example/.well-known/tdmrep.json", r#"[{"location": "/x", "tdm-reservation": 1}]"#);
        put(
            "more.jsonl",
            &(record("http://c.example/robots.txt", "2026-01-01", "user-agent: *\ndisallow: /").to_json()
                + "\n"),
        );
        let mut rules = SiteRules::new(&["*".to_string()], "");
        rules.read(folder.path()).unwrap();
        assert_eq!(rules.fault("https://xn--bcher-kva.example/1"), Some(Reason::RobotsDisallowed));
        assert_eq!(rules.fault("https://b.example/x"), Some(Reason::TdmReserved));
        assert_eq!(rules.fault("https://b.example/y"), None);
        assert_eq!(rules.fault("https://c.example/"), Some(Reason::RobotsDisallowed));
        put("b.example/.well-known/tdmrep.json", "<html>");
        let message = SiteRules::new(&[], "").read(folder.path()).unwrap_err().to_string();
        assert!(message.contains("tdmrep.json"), "{message}");
        put("empty/note.txt", "");
        let message = SiteRules::new(&[], "").read(&folder.path().join("empty")).unwrap_err().to_string();
        assert!(message.contains("note.txt"), "{message}");
    }
}
