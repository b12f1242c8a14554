//! A small stroke font for the PNG: each letter a few lines and arcs on a grid, in the manner of the lettering on
//! technical drawings. Capitals are 7 units high, small letters 5, and 2 reach below the base line (y points up).

use tiny_skia::{Path, PathBuilder};

/// Units of a capital's height.
const CAPITAL: f64 = 7.0;
/// Height of a capital as a share of the size of a text, as in common fonts.
const CAPITAL_SHARE: f64 = 0.715;
/// Units between two letters.
const GAP: f64 = 1.75;

/// Pixels of one unit in a text of that size.
fn unit(size: f64) -> f64 {
    size * CAPITAL_SHARE / CAPITAL
}

/// Width of the strokes.
pub(crate) fn stroke_width(size: f64, bold: bool) -> f64 {
    unit(size) * if bold { 1.35 } else { 0.9 }
}

/// Width of a text in pixels.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    let advances: f64 = text.chars().map(|c| glyph(c).0 + GAP).sum();
    (advances - GAP).max(0.0) * unit(size)
}

/// The strokes of a text whose base line begins at the origin; y points down. `None` without any strokes.
pub(crate) fn strokes(text: &str, size: f64) -> Option<Path> {
    let mut builder = PathBuilder::new();
    let unit = unit(size);
    let mut left = 0.0;
    for c in text.chars() {
        let (width, strokes) = glyph(c);
        draw(&mut builder, strokes, |x, y| (((left + x) * unit) as f32, (-y * unit) as f32));
        left += width + GAP;
    }
    builder.finish()
}

/// Follows the strokes of a letter: M and L to a point, Q over a control point, C over two, O an ellipse by centre and
/// radii.
fn draw(builder: &mut PathBuilder, strokes: &str, place: impl Fn(f64, f64) -> (f32, f32)) {
    let mut words = strokes.split_whitespace();
    let mut numbers = [0.0f64; 6];
    while let Some(command) = words.next() {
        let count = match command {
            "M" | "L" => 2,
            "Q" | "O" => 4,
            _ => 6,
        };
        for number in &mut numbers[..count] {
            *number = words.next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
        }
        let at = |index: usize| place(numbers[index], numbers[index + 1]);
        match command {
            "M" => builder.move_to(at(0).0, at(0).1),
            "L" => builder.line_to(at(0).0, at(0).1),
            "Q" => builder.quad_to(at(0).0, at(0).1, at(2).0, at(2).1),
            "C" => builder.cubic_to(at(0).0, at(0).1, at(2).0, at(2).1, at(4).0, at(4).1),
            _ => {
                // Four arcs; the number makes a cubic curve a quarter of a circle.
                let [x, y, a, b, ..] = numbers;
                let (k, l) = (a * 0.5523, b * 0.5523);
                let points = [
                    [(a, l), (k, b), (0.0, b)],
                    [(-k, b), (-a, l), (-a, 0.0)],
                    [(-a, -l), (-k, -b), (0.0, -b)],
                    [(k, -b), (a, -l), (a, 0.0)],
                ];
                let start = place(x + a, y);
                builder.move_to(start.0, start.1);
                for arc in points {
                    let [one, two, three] = arc.map(|(dx, dy)| place(x + dx, y + dy));
                    builder.cubic_to(one.0, one.1, two.0, two.1, three.0, three.1);
                }
                builder.close();
            }
        }
    }
}

/// Width and strokes; what the font does not have is an empty box.
fn glyph(c: char) -> (f64, &'static str) {
    match c {
        ' ' | '\u{a0}' => (1.6, ""),
        '0' => (4.2, "O 2.1 3.5 2.1 3.5"),
        '1' => (2.4, "M 0.2 5.4 L 2 7 L 2 0"),
        '2' => (4.0, "M 0.2 5.2 C 0.3 6.4 1 7 2 7 C 3.2 7 3.9 6.2 3.9 5.2 C 3.9 3.4 1.4 2.2 0.1 0 L 4 0"),
        '3' => (
            4.0,
            "M 0.2 6.9 L 3.8 6.9 L 1.8 4.2 C 3.2 4.2 4 3.3 4 2.1 C 4 0.8 3.1 0 1.9 0 C 0.9 0 0.2 0.6 0 1.5",
        ),
        '4' => (4.5, "M 3.3 0 L 3.3 7 L 0 2 L 4.5 2"),
        '5' => (
            4.0,
            "M 3.7 7 L 0.6 7 L 0.2 3.7 C 0.7 4.2 1.3 4.5 2 4.5 C 3.2 4.5 4 3.6 4 2.3 C 4 0.9 3.2 0 1.9 0 C 0.9 0 0.2 0.6 0 1.4",
        ),
        '6' => (
            4.0,
            "M 3.3 7 C 1.6 6.2 0 4.4 0 2.2 M 2 0 C 0.8 0 0 0.9 0 2.2 C 0 3.4 0.8 4.3 2 4.3 C 3.2 4.3 4 3.4 4 2.2 C 4 0.9 3.2 0 2 0",
        ),
        '7' => (4.0, "M 0 7 L 4 7 L 1.3 0"),
        '8' => (4.2, "O 2.1 5.35 1.75 1.65 O 2.1 1.85 2.1 1.85"),
        '9' => (
            4.0,
            "M 0.7 0 C 2.4 0.8 4 2.6 4 4.8 M 2 7 C 3.2 7 4 6.1 4 4.8 C 4 3.6 3.2 2.7 2 2.7 C 0.8 2.7 0 3.6 0 4.8 C 0 6.1 0.8 7 2 7",
        ),
        'A' => (5.2, "M 0 0 L 2.6 7 L 5.2 0 M 0.9 2.3 L 4.3 2.3"),
        'B' => (
            4.3,
            "M 0 0 L 0 7 L 2.1 7 C 3.3 7 3.9 6.3 3.9 5.4 C 3.9 4.5 3.3 3.8 2.1 3.8 L 0 3.8 M 2.1 3.8 C 3.5 3.8 4.3 3 4.3 1.9 C 4.3 0.7 3.5 0 2.1 0 L 0 0",
        ),
        'C' => (
            5.0,
            "M 5 5.6 C 4.5 6.5 3.7 7 2.7 7 C 1.1 7 0 5.6 0 3.5 C 0 1.4 1.1 0 2.7 0 C 3.7 0 4.5 0.5 5 1.4",
        ),
        'D' => (4.8, "M 0 0 L 0 7 L 1.8 7 C 3.7 7 4.8 5.6 4.8 3.5 C 4.8 1.4 3.7 0 1.8 0 L 0 0"),
        'E' => (3.8, "M 3.8 0 L 0 0 L 0 7 L 3.8 7 M 0 3.7 L 3.2 3.7"),
        'F' => (3.7, "M 0 0 L 0 7 L 3.7 7 M 0 3.6 L 3.1 3.6"),
        'G' => (
            5.2,
            "M 5 5.6 C 4.5 6.5 3.7 7 2.7 7 C 1.1 7 0 5.6 0 3.5 C 0 1.4 1.1 0 2.7 0 C 4.1 0 5.2 1 5.2 3.1 L 3 3.1",
        ),
        'H' => (4.8, "M 0 0 L 0 7 M 4.8 0 L 4.8 7 M 0 3.7 L 4.8 3.7"),
        'I' => (0.4, "M 0.2 0 L 0.2 7"),
        'J' => (3.2, "M 3.2 7 L 3.2 1.9 C 3.2 0.7 2.5 0 1.5 0 C 0.8 0 0.2 0.4 0 1.2"),
        'K' => (4.4, "M 0 0 L 0 7 M 4.2 7 L 0 2.5 M 1.5 4.1 L 4.4 0"),
        'L' => (3.5, "M 0 7 L 0 0 L 3.5 0"),
        'M' => (6.0, "M 0 0 L 0 7 L 3 1.8 L 6 7 L 6 0"),
        'N' => (4.8, "M 0 0 L 0 7 L 4.8 0 L 4.8 7"),
        'O' => (5.6, "O 2.8 3.5 2.8 3.5"),
        'P' => (4.1, "M 0 0 L 0 7 L 2.1 7 C 3.4 7 4.1 6.2 4.1 5 C 4.1 3.8 3.4 3 2.1 3 L 0 3"),
        'Q' => (5.6, "O 2.8 3.5 2.8 3.5 M 3.4 1.6 L 5.4 -0.5"),
        'R' => (
            4.4,
            "M 0 0 L 0 7 L 2.2 7 C 3.4 7 4.1 6.3 4.1 5.2 C 4.1 4.1 3.4 3.4 2.2 3.4 L 0 3.4 M 2.3 3.4 L 4.4 0",
        ),
        'S' => (
            4.2,
            "M 4 5.7 C 3.7 6.5 3 7 2.1 7 C 1 7 0.2 6.3 0.2 5.3 C 0.2 4.1 1.1 3.9 2.1 3.6 C 3.2 3.3 4.2 3 4.2 1.8 C 4.2 0.7 3.3 0 2.1 0 C 1 0 0.3 0.6 0 1.5",
        ),
        'T' => (4.6, "M 0 7 L 4.6 7 M 2.3 7 L 2.3 0"),
        'U' => (4.8, "M 0 7 L 0 2.4 C 0 0.9 0.9 0 2.4 0 C 3.9 0 4.8 0.9 4.8 2.4 L 4.8 7"),
        'V' => (5.0, "M 0 7 L 2.5 0 L 5 7"),
        'W' => (7.0, "M 0 7 L 1.7 0 L 3.5 6.4 L 5.3 0 L 7 7"),
        'X' => (4.6, "M 0 0 L 4.6 7 M 0 7 L 4.6 0"),
        'Y' => (4.8, "M 0 7 L 2.4 3.2 L 4.8 7 M 2.4 3.2 L 2.4 0"),
        'Z' => (4.4, "M 0 7 L 4.4 7 L 0 0 L 4.4 0"),
        'a' => (
            3.6,
            "M 0.3 4.1 C 0.6 4.7 1.2 5 1.9 5 C 3 5 3.6 4.3 3.6 3.3 L 3.6 0 M 3.6 2.9 L 1.6 2.8 C 0.6 2.7 0 2.2 0 1.4 C 0 0.6 0.6 0 1.5 0 C 2.7 0 3.6 0.9 3.6 1.9",
        ),
        'b' => (
            3.9,
            "M 0 7.2 L 0 0 M 0 2.5 C 0 4 0.8 5 2 5 C 3.1 5 3.9 4 3.9 2.5 C 3.9 1 3.1 0 2 0 C 0.8 0 0 1 0 2.5",
        ),
        'c' => (3.6, "M 3.6 4 C 3.3 4.6 2.7 5 2 5 C 0.8 5 0 4 0 2.5 C 0 1 0.8 0 2 0 C 2.7 0 3.3 0.4 3.6 1"),
        'd' => (
            3.9,
            "M 3.9 7.2 L 3.9 0 M 3.9 2.5 C 3.9 4 3.1 5 1.9 5 C 0.8 5 0 4 0 2.5 C 0 1 0.8 0 1.9 0 C 3.1 0 3.9 1 3.9 2.5",
        ),
        'e' => (
            3.9,
            "M 0 2.6 L 3.9 2.6 C 3.9 4 3.1 5 2 5 C 0.8 5 0 4 0 2.5 C 0 1 0.8 0 2.1 0 C 2.8 0 3.4 0.3 3.8 0.9",
        ),
        'f' => (2.4, "M 2.4 7.1 C 1.4 7.4 0.8 6.9 0.8 5.8 L 0.8 0 M 0 4.8 L 2.2 4.8"),
        'g' => (
            3.9,
            "M 3.9 5 L 3.9 0.2 C 3.9 -1.2 3.1 -2 1.9 -2 C 1.1 -2 0.6 -1.8 0.2 -1.3 M 3.9 2.6 C 3.9 4 3.1 5 1.9 5 C 0.8 5 0 4 0 2.6 C 0 1.2 0.8 0.2 1.9 0.2 C 3.1 0.2 3.9 1.2 3.9 2.6",
        ),
        'h' => (3.6, "M 0 7.2 L 0 0 M 0 3 C 0 4.2 0.8 5 1.9 5 C 3 5 3.6 4.2 3.6 3.1 L 3.6 0"),
        'i' => (0.4, "M 0.2 4.9 L 0.2 0 M 0.2 6.7 L 0.2 6.9"),
        'j' => (0.9, "M 0.7 4.9 L 0.7 -0.8 C 0.7 -1.7 0.2 -2 -0.5 -1.9 M 0.7 6.7 L 0.7 6.9"),
        'k' => (3.4, "M 0 7.2 L 0 0 M 3.2 4.9 L 0 1.7 M 1.2 2.9 L 3.4 0"),
        'l' => (0.4, "M 0.2 7.2 L 0.2 0"),
        'm' => (
            6.2,
            "M 0 4.9 L 0 0 M 0 3.2 C 0 4.3 0.7 5 1.6 5 C 2.6 5 3.1 4.3 3.1 3.2 L 3.1 0 M 3.1 3.2 C 3.1 4.3 3.8 5 4.7 5 C 5.7 5 6.2 4.3 6.2 3.2 L 6.2 0",
        ),
        'n' => (3.6, "M 0 4.9 L 0 0 M 0 3 C 0 4.2 0.8 5 1.9 5 C 3 5 3.6 4.2 3.6 3.1 L 3.6 0"),
        'o' => (4.0, "O 2 2.5 2 2.5"),
        'p' => (
            3.9,
            "M 0 4.9 L 0 -2 M 0 2.5 C 0 4 0.8 5 2 5 C 3.1 5 3.9 4 3.9 2.5 C 3.9 1 3.1 0 2 0 C 0.8 0 0 1 0 2.5",
        ),
        'q' => (
            3.9,
            "M 3.9 4.9 L 3.9 -2 M 3.9 2.5 C 3.9 4 3.1 5 1.9 5 C 0.8 5 0 4 0 2.5 C 0 1 0.8 0 1.9 0 C 3.1 0 3.9 1 3.9 2.5",
        ),
        'r' => (2.2, "M 0 4.9 L 0 0 M 0 2.8 C 0 4.2 0.9 5.1 2.2 4.9"),
        's' => (
            3.3,
            "M 3.1 4 C 2.9 4.6 2.4 5 1.7 5 C 0.8 5 0.2 4.5 0.2 3.7 C 0.2 2.9 0.9 2.7 1.7 2.5 C 2.6 2.3 3.3 2.1 3.3 1.3 C 3.3 0.5 2.6 0 1.7 0 C 0.8 0 0.2 0.4 0 1.1",
        ),
        't' => (2.3, "M 0.8 6.5 L 0.8 1.4 C 0.8 0.3 1.4 -0.1 2.3 0.1 M 0 4.8 L 2.2 4.8"),
        'u' => (3.6, "M 0 4.9 L 0 1.9 C 0 0.8 0.6 0 1.7 0 C 2.8 0 3.6 0.8 3.6 2 M 3.6 4.9 L 3.6 0"),
        'v' => (3.6, "M 0 4.9 L 1.8 0 L 3.6 4.9"),
        'w' => (5.4, "M 0 4.9 L 1.4 0 L 2.7 4.5 L 4 0 L 5.4 4.9"),
        'x' => (3.4, "M 0 0 L 3.4 4.9 M 0 4.9 L 3.4 0"),
        'y' => (3.6, "M 0 4.9 L 1.8 0.1 M 3.6 4.9 L 1.5 -1.1 C 1.2 -1.8 0.8 -2.1 0.1 -1.9"),
        'z' => (3.3, "M 0 4.9 L 3.3 4.9 L 0 0 L 3.3 0"),
        '.' => (0.5, "M 0.25 0 L 0.25 0.1"),
        ',' => (0.7, "M 0.6 0.2 L 0.2 -1.1"),
        ':' => (0.5, "M 0.25 0.3 L 0.25 0.4 M 0.25 4.3 L 0.25 4.4"),
        ';' => (0.7, "M 0.6 0.3 L 0.2 -1 M 0.6 4.3 L 0.6 4.4"),
        '!' => (0.5, "M 0.25 7 L 0.25 2.2 M 0.25 0 L 0.25 0.1"),
        '?' => (
            3.4,
            "M 0 5.4 C 0.2 6.4 0.9 7 1.8 7 C 2.8 7 3.4 6.3 3.4 5.4 C 3.4 4 1.7 3.7 1.7 2.1 M 1.7 0 L 1.7 0.1",
        ),
        '-' | '‐' | '‑' => (2.2, "M 0 2.6 L 2.2 2.6"),
        '–' | '−' => (3.4, "M 0 2.8 L 3.4 2.8"),
        '—' => (5.6, "M 0 2.8 L 5.6 2.8"),
        '_' => (3.8, "M 0 -0.9 L 3.8 -0.9"),
        '+' => (3.6, "M 0 2.9 L 3.6 2.9 M 1.8 1.1 L 1.8 4.7"),
        '=' => (3.6, "M 0 2 L 3.6 2 M 0 3.8 L 3.6 3.8"),
        '<' => (3.4, "M 3.4 4.8 L 0 2.9 L 3.4 1"),
        '>' => (3.4, "M 0 4.8 L 3.4 2.9 L 0 1"),
        '/' => (3.0, "M 0 -0.8 L 3 7.4"),
        '\\' => (3.0, "M 0 7.4 L 3 -0.8"),
        '|' => (0.4, "M 0.2 -1.5 L 0.2 7.6"),
        '(' => (1.6, "M 1.6 7.6 C 0.5 6.4 0 4.8 0 3 C 0 1.2 0.5 -0.4 1.6 -1.6"),
        ')' => (1.6, "M 0 7.6 C 1.1 6.4 1.6 4.8 1.6 3 C 1.6 1.2 1.1 -0.4 0 -1.6"),
        '[' => (1.4, "M 1.4 7.5 L 0 7.5 L 0 -1.3 L 1.4 -1.3"),
        ']' => (1.4, "M 0 7.5 L 1.4 7.5 L 1.4 -1.3 L 0 -1.3"),
        '%' => (6.0, "O 1.3 5.5 1.3 1.5 O 4.7 1.5 1.3 1.5 M 1.3 0 L 4.7 7"),
        '*' => (3.0, "M 1.5 7 L 1.5 4 M 0.2 6.2 L 2.8 4.8 M 2.8 6.2 L 0.2 4.8"),
        '#' => (4.4, "M 1.1 0 L 1.7 7 M 2.9 0 L 3.5 7 M 0.1 2.3 L 4.2 2.3 M 0.3 4.7 L 4.4 4.7"),
        '\'' | '’' => (0.4, "M 0.2 7 L 0.2 5.2"),
        '"' => (1.6, "M 0.2 7 L 0.2 5.2 M 1.4 7 L 1.4 5.2"),
        '·' => (0.5, "M 0.25 2.8 L 0.25 2.9"),
        '×' => (3.0, "M 0.2 1.5 L 2.8 4.3 M 0.2 4.3 L 2.8 1.5"),
        '~' => (3.8, "M 0 2.4 C 0.7 3.8 1.4 3.4 1.9 2.9 C 2.4 2.4 3.1 2 3.8 3.4"),
        '&' => (
            5.0,
            "M 5 0 L 1.1 4.7 C 0.4 5.7 0.9 7 2.1 7 C 3.3 7 3.8 5.7 2.9 4.9 C 2 4.1 0 3.4 0 1.8 C 0 0.7 0.8 0 1.9 0 C 3.3 0 4.4 1.2 4.8 3",
        ),
        '@' => (
            6.4,
            "O 3.2 2.8 1.4 1.6 M 4.6 4.4 L 4.6 2.2 C 4.6 0.9 6.4 1 6.4 3 C 6.4 5.4 5 6.8 3.2 6.8 C 1.4 6.8 0 5.2 0 3 C 0 0.8 1.4 -0.8 3.2 -0.8 C 4 -0.8 4.6 -0.6 5.2 -0.2",
        ),
        _ => (3.6, "M 0 0 L 3.6 0 L 3.6 7 L 0 7 L 0 0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_ascii_letter_has_strokes_within_its_width() {
        let missing = glyph('\u{fffd}');
        let bare: String = ('!'..='~').filter(|c| glyph(*c) == missing).collect();
        assert_eq!(bare, "$^`{}");
        for c in ' '..='~' {
            let (width, strokes) = glyph(c);
            let mut numbers = strokes.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
            assert!(numbers.all(|number| (-2.1..=7.7).contains(&number)), "{c}");
            assert!(width > 0.0 && width < 8.0);
        }
        assert!(width("step", 12.0) > 15.0 && width("step", 12.0) < 40.0);
    }
}
