//! What is kept of an element's attributes: flags, and what the page's hints are made of.

use crate::names;

/// What is kept of the attributes of the tag being read.
#[derive(Default)]
pub struct Attributes {
    /// Of [`names`].
    pub flags: u16,
    /// Digest of the class.
    pub class: u32,
    /// Whether there is a name or id.
    pub is_named: bool,
    pub href: String,
    pub rel: String,
    pub name: String,
    pub property: String,
    pub http_equiv: String,
    pub content: String,
    pub lang: String,
    pub datetime: String,
    pub kind: String,
}

impl Attributes {
    /// Whether a relation is `license`.
    pub fn says_license(&self) -> bool {
        self.rel.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("license"))
    }

    pub fn clear(&mut self) {
        self.flags = 0;
        self.class = 0;
        self.is_named = false;
        for value in [
            &mut self.href,
            &mut self.rel,
            &mut self.name,
            &mut self.property,
            &mut self.http_equiv,
            &mut self.content,
            &mut self.lang,
            &mut self.datetime,
            &mut self.kind,
        ] {
            value.clear();
        }
    }

    /// One attribute of the tag; of several with one name the first counts.
    pub fn keep(&mut self, name: &[u8], value: &str) {
        match name {
            b"class" => {
                self.flags |= names::flags_of_name(value);
                self.class ^= digest(value.as_bytes());
            }
            b"id" => {
                self.flags |= names::flags_of_name(value);
                self.is_named = true;
            }
            b"role" => self.flags |= names::flags_of_role(value),
            b"style" => self.flags |= names::flags_of_style(value),
            b"hidden" if !value.eq_ignore_ascii_case("until-found") => self.flags |= names::HIDDEN,
            b"aria-hidden" if value.eq_ignore_ascii_case("true") => self.flags |= names::HIDDEN,
            b"aria-modal" if value.eq_ignore_ascii_case("true") => self.flags |= names::BOILERPLATE,
            b"tabindex" if value == "0" => self.flags |= names::CONTROL,
            b"itemprop" if value.split_ascii_whitespace().any(|name| name == "articleBody") => {
                self.flags |= names::ARTICLE_BODY;
            }
            b"href" => {
                if !value.is_empty() && !value.contains('#') && !value.starts_with("javascript:") {
                    self.flags |= names::LEADS_AWAY;
                }
                first(&mut self.href, value);
            }
            b"rel" => first(&mut self.rel, value),
            b"name" => {
                first(&mut self.name, value);
                self.is_named = true;
            }
            b"property" => first(&mut self.property, value),
            b"http-equiv" => first(&mut self.http_equiv, value),
            b"content" => first(&mut self.content, value),
            b"lang" | b"xml:lang" => first(&mut self.lang, value),
            b"datetime" => first(&mut self.datetime, value),
            b"type" => first(&mut self.kind, value),
            _ => {}
        }
    }
}

fn first(place: &mut String, value: &str) {
    if place.is_empty() {
        place.push_str(value);
    }
}

/// FNV-1a, 32 bits: equal classes must give equal digests, and no one is hurt where two different ones do.
pub fn digest(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
