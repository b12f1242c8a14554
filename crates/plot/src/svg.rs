//! A scene as SVG 1.1; words stay words, so that they can be searched and read aloud.

use crate::scene::{Anchor, Colour, Item, Scene};
use std::fmt::Write as _;

pub(crate) fn write(scene: &Scene) -> String {
    let Scene { width, height, items } = scene;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"Inter, 'Helvetica Neue', Helvetica, Arial, sans-serif\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for item in items {
        // Writing to a string cannot fail.
        let _ = match item {
            Item::Line { points, colour, width, opacity, dash } => {
                let points: Vec<String> =
                    points.iter().map(|(x, y)| format!("{},{}", number(*x), number(*y))).collect();
                let mut more = String::new();
                if *opacity < 1.0 {
                    let _ = write!(more, " stroke-opacity=\"{}\"", number(*opacity));
                }
                if let Some((dash, gap)) = dash {
                    let _ = write!(more, " stroke-dasharray=\"{} {}\"", number(*dash), number(*gap));
                }
                writeln!(
                    out,
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{more}/>",
                    points.join(" "),
                    hex(*colour),
                    number(*width)
                )
            }
            Item::Rectangle { x, y, width, height, colour } => writeln!(
                out,
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>",
                number(*x),
                number(*y),
                number(*width),
                number(*height),
                hex(*colour)
            ),
            Item::Dot { x, y, radius, colour } => writeln!(
                out,
                "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\"/>",
                number(*x),
                number(*y),
                number(*radius),
                hex(*colour)
            ),
            Item::Text { x, y, text, size, anchor, colour, bold, turned } => {
                let (x, y) = (number(*x), number(*y));
                let anchor = match anchor {
                    Anchor::Start => "start",
                    Anchor::Middle => "middle",
                    Anchor::End => "end",
                };
                let weight = if *bold { " font-weight=\"600\"" } else { "" };
                let turn =
                    if *turned { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
                writeln!(
                    out,
                    "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\" text-anchor=\"{anchor}\" fill=\"{}\"{weight}{turn}>{}</text>",
                    number(*size),
                    hex(*colour),
                    escaped(text)
                )
            }
        };
    }
    out.push_str("</svg>\n");
    out
}

/// Two decimals, without zeros at the end.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

fn hex(Colour(red, green, blue): Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// What XML does not allow at all becomes the replacement character.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_written_safely() {
        assert_eq!(escaped("a<b> & ħobż\u{1b}"), "a&lt;b&gt; &amp; ħobż\u{fffd}");
        assert_eq!([number(1.0), number(-0.001), number(2.346)], ["1", "0", "2.35"]);
    }
}
