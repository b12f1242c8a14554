//! How elements become lines of text, on pages small enough to see.

fn check(html: &str, expected: &str) {
    assert_eq!(
        pages::extract(html.as_bytes(), Some("text/html; charset=utf-8"), None).text,
        expected,
        "{html}"
    );
}

const PARAGRAPH: &str =
    "Il-mitħna tar-riħ reġgħet daret il-Ħadd filgħodu, quddiem folla ta' mijiet ta' residenti.";

#[test]
fn paragraphs_headings_and_lists_stand_on_lines_of_their_own() {
    check(
        &format!(
            "<h1>Mitħna</h1><p>{PARAGRAPH}<p>{PARAGRAPH}</p><h2>Xogħol</h2><ul><li>Injam <b>tal-ballut</b>\n<li>Ġebel</ul>{PARAGRAPH}"
        ),
        &format!(
            "Mitħna\n\n{PARAGRAPH}\n\n{PARAGRAPH}\n\nXogħol\n\n- Injam tal-ballut\n- Ġebel\n\n{PARAGRAPH}"
        ),
    );
}

#[test]
fn tables_are_read_row_by_row() {
    check(
        &format!(
            "<p>{PARAGRAPH}</p><table><caption>Żjarat</caption><tr><th>Sena<th>Viżitaturi<tr><td>2025<td><p>1,204</p>\
             <tr><td></td><td>— </td></tr></table>"
        ),
        &format!("{PARAGRAPH}\n\nŻjarat\n\nSena | Viżitaturi\n2025 | 1,204\n| —"),
    );
    // A table that only places things is none.
    check(
        &format!("<table><tr><td><a href=/>Dar</a><td><p>{PARAGRAPH}</p><p>{PARAGRAPH}</p></table>"),
        &format!("{PARAGRAPH}\n\n{PARAGRAPH}"),
    );
}

#[test]
fn code_keeps_its_lines_and_poems_their_breaks() {
    check(
        &format!("<p>{PARAGRAPH}</p><pre>a\n  b &lt; <span class=comment>c</span>\n</pre>"),
        &format!("{PARAGRAPH}\n\na\n  b < c"),
    );
    check(
        &format!("<p>{PARAGRAPH}<br>{PARAGRAPH}<br> <br>{PARAGRAPH}"),
        &format!("{PARAGRAPH}\n{PARAGRAPH}\n\n{PARAGRAPH}"),
    );
}

#[test]
fn signs_of_layout_are_no_text() {
    check(
        &format!(
            "<p>{PARAGRAPH}<sup><a href=#n>1</a></sup> CO<sub>2</sub>, m<sup>2</sup>.<h2>Xo&shy;għol<a href=#x>§</a></h2><p>{PARAGRAPH}"
        ),
        &format!("{PARAGRAPH} CO2, m2.\n\nXogħol\n\n{PARAGRAPH}"),
    );
    check(&format!("<p>{}", PARAGRAPH.replace(' ', "&nbsp; \n")), PARAGRAPH);
}

#[test]
fn what_is_not_shown_is_not_read() {
    check(
        &format!(
            "<script>var a = '<p>{PARAGRAPH}</p>';</script><style>p{{}}</style><noscript><p>{PARAGRAPH}</noscript>\
             <template><p>{PARAGRAPH}</template><p hidden>{PARAGRAPH}<p style='display: none'>{PARAGRAPH}\
             <!-- <p>{PARAGRAPH}</p> --><svg><text>{PARAGRAPH}</text></svg><p>{PARAGRAPH}<select><option>x<option>y</select>"
        ),
        PARAGRAPH,
    );
}

#[test]
fn a_page_that_shows_itself_by_script_is_read() {
    check(
        &format!("<div id=app style='visibility:hidden'><p>{PARAGRAPH}</div><script>show()</script>"),
        PARAGRAPH,
    );
}

#[test]
fn places_to_link_to_are_no_links() {
    check(
        &format!("<p><a name=a>{PARAGRAPH}<p><a id=b>{PARAGRAPH}</a>"),
        &format!("{PARAGRAPH}\n\n{PARAGRAPH}"),
    );
}

#[test]
fn lost_tags_do_not_swallow_the_rest() {
    let twice = format!("{PARAGRAPH}\n\n{PARAGRAPH}");
    for html in [
        "<div><p>%</div></div></div><div><p>%",
        "<p><b>%<p>%</b></p>",
        "<p><a href=/x>%<p>%",
        "<h3>%<div>%</div>",
        "<table><tr><td>%<br><br>%",
        "<p>%</p></p><div><span>%</div>",
        "<ul><li>a</ul></li></ul><p>%</table></td><p>%",
        "<p>%<button>x<p>%",
        "<form><p>%<p>%",
        "<P CLASS=a ID=b =\">%<p>%",
    ] {
        let found = pages::extract(html.replace('%', PARAGRAPH).as_bytes(), None, None).text;
        assert!(found.ends_with(&twice), "{html}: {found}");
    }
}

#[test]
fn a_page_without_text_gives_none() {
    for html in
        ["", " ", "<html>", "<p></p>", "<nav><a href=/a>Dar</a></nav>", "<!doctype html><title>x</title>"]
    {
        check(html, "");
    }
}
