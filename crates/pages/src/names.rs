//! What the names of classes, ids and roles tell about an element.
//!
//! Such names are English in pages of all languages, as those of the elements are; the few others are in common use.

/// The element is no content: menus, notices, forms, lists of other pages.
pub const BOILERPLATE: u16 = 1;
/// The element is no content if its text is short: bylines, dates, labels.
pub const MINOR: u16 = 2;
/// The page does not show the element.
pub const HIDDEN: u16 = 4;
/// The element lies over the page.
pub const OVERLAY: u16 = 8;
/// What the page's author marked as the content.
pub const MAIN: u16 = 16;
/// The marked text of an article.
pub const ARTICLE_BODY: u16 = 32;
/// The element can be pressed.
pub const CONTROL: u16 = 64;
/// A notice about cookies and consent: never content.
pub const NOTICE: u16 = 128;
/// A link that leads somewhere else than this page.
pub const LEADS_AWAY: u16 = 256;
/// The foot of the page, or where it names its licence.
pub const FOOTER: u16 = 512;
/// Perhaps only for those who have the page read to them; see [`flags_of_name`].
const READ_ALOUD: u16 = 1024;

/// The flags of a class or id attribute.
pub fn flags_of_name(value: &str) -> u16 {
    let mut flags = 0;
    let bytes = value.as_bytes();
    let mut start = 0;
    // Words are cut at anything but letters, and where a capital follows a small letter.
    for place in 0..=bytes.len() {
        let ends = match bytes.get(place) {
            None => true,
            Some(byte) if !byte.is_ascii_alphabetic() => true,
            Some(byte) => byte.is_ascii_uppercase() && place > start && bytes[place - 1].is_ascii_lowercase(),
        };
        if ends {
            flags |= flags_of_word(&bytes[start..place]);
            start = if bytes.get(place).is_some_and(u8::is_ascii_alphabetic) { place } else { place + 1 };
        }
    }
    // `sr-only`, `visually-hidden`, `screen-reader-text`: words that only repeat what can be seen.
    if flags & READ_ALOUD != 0 {
        flags &= !READ_ALOUD;
        if ["only", "hidden", "reader"].iter().any(|part| value.contains(part)) {
            flags |= HIDDEN;
        }
    }
    flags
}

fn flags_of_word(word: &[u8]) -> u16 {
    let mut lower = [0; 16];
    if word.len() < 2 || word.len() > lower.len() {
        return 0;
    }
    for (to, from) in lower.iter_mut().zip(word) {
        *to = from.to_ascii_lowercase();
    }
    match &lower[..word.len()] {
        // ways through the site
        b"nav" | b"navbar" | b"navbox" | b"navigation" | b"menu" | b"menus" | b"submenu" | b"breadcrumb"
        | b"breadcrumbs" | b"sidebar" | b"pagination" | b"pager" | b"paging" | b"toc" | b"sitemap" | b"catlinks"
        | b"editsection" | b"mw-jump-link" | b"skiplink" | b"masthead" | b"topbar" | b"toolbar"
        // over the page
        | b"popup" | b"modal" | b"lightbox" | b"paywall"
        // what is to be passed on, bought or signed
        | b"share" | b"sharing" | b"sharedaddy" | b"social" | b"socials" | b"addtoany" | b"newsletter" | b"subscribe"
        | b"subscription" | b"signup" | b"login" | b"signin" | b"promo" | b"promotion" | b"sponsor" | b"sponsored"
        | b"advert" | b"adverts" | b"advertisement" | b"advertising" | b"ad" | b"ads" | b"adsbygoogle" | b"banner"
        | b"werbung" | b"anzeige" | b"publicidad" | b"publicite" | b"pubblicita" | b"reklama" | b"reklam"
        | b"reklame" | b"annons" | b"mainos" | b"donate" | b"donation"
        // other pages
        | b"related" | b"relatedposts" | b"recommended"
        | b"outbrain" | b"taboola" | b"tagcloud" | b"trending"
        // what readers say, and ask for
        | b"comment" | b"comments" | b"commentlist" | b"kommentare" | b"kommentarer" | b"commentaires"
        | b"comentarios" | b"commenti" | b"reacties" | b"komentarze" | b"kommentit" | b"disqus" | b"respond" | b"feedback"
        | b"reflist" | b"noprint" | b"searchform" | b"searchbox" => BOILERPLATE,
        b"byline" | b"author" | b"authors" | b"meta" | b"date" | b"dateline" | b"datetime" | b"timestamp" | b"time"
        | b"published" | b"posted" | b"tags" | b"tag" | b"category" | b"categories" | b"credit" | b"credits"
        | b"caption" | b"thumb" | b"thumbcaption" | b"print" | b"tools" | b"actions" | b"buttons" | b"button"
        | b"btn" | b"rating" | b"ratings" | b"price" | b"avatar" | b"profile" | b"postprofile" | b"username"
        | b"signature" | b"reference" | b"search" | b"language" | b"languages" | b"downloads"
        | b"readmore" | b"more" | b"skip" | b"permalink" | b"vcard" | b"crumb" | b"crumbs" | b"label" | b"badge"
        | b"disclaimer" => MINOR,
        b"cookie" | b"cookies" | b"cookiebar" | b"cookiebanner" | b"consent" | b"gdpr" | b"cmp"
        // programs that many sites show their notices with
        | b"cookiebot" | b"cookieconsent" | b"cookielaw" | b"onetrust" | b"didomi" | b"usercentrics" | b"borlabs"
        | b"klaro" | b"iubenda" | b"quantcast" | b"cmplz" | b"tarteaucitron" | b"axeptio" | b"termly" => NOTICE,
        b"sr" | b"screen" | b"visually" | b"visuallyhidden" => READ_ALOUD,
        b"copyright" => MINOR | FOOTER,
        b"footer" | b"colophon" => BOILERPLATE | FOOTER,
        b"license" | b"licence" | b"legal" => FOOTER,
        b"overlay" => OVERLAY,
        _ => 0,
    }
}

/// The flags of a `style` attribute.
pub fn flags_of_style(value: &str) -> u16 {
    let value: String =
        value.chars().filter(|letter| !letter.is_whitespace()).take(2000).collect::<String>().to_lowercase();
    let mut flags = 0;
    if value.contains("display:none") || value.contains("visibility:hidden") {
        flags |= HIDDEN;
    }
    if value.contains("position:fixed") || value.contains("position:sticky") {
        flags |= OVERLAY;
    }
    flags
}

/// The flags of a `role` attribute.
pub fn flags_of_role(value: &str) -> u16 {
    match value.trim().to_ascii_lowercase().as_str() {
        "main" => MAIN,
        "navigation" | "banner" | "contentinfo" | "complementary" | "search" | "menu" | "menubar"
        | "toolbar" | "dialog" | "alertdialog" | "alert" | "form" => BOILERPLATE,
        "button" | "checkbox" | "switch" | "tab" => CONTROL,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_word_by_word() {
        for (name, expected) in [
            ("site-footer", BOILERPLATE | FOOTER),
            ("mainNav", BOILERPLATE),
            ("article__share", BOILERPLATE),
            ("post-meta", MINOR),
            ("download badly-shaped navy", 0),
            ("header-ad top", BOILERPLATE),
            ("CybotCookiebotDialog", NOTICE),
            ("a visually-hidden", HIDDEN),
            ("screen", 0),
            ("css-1x2f3a", 0),
            ("", 0),
            ("ΑΒΓ", 0),
        ] {
            assert_eq!(flags_of_name(name), expected, "{name}");
        }
        assert_eq!(flags_of_style("color:red; display : NONE"), HIDDEN);
        assert_eq!(flags_of_role("Main"), MAIN);
    }
}
