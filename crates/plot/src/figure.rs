//! What a caller says: a title, a legend, panels of curves or bars. Laid out here in pixels.

use crate::axes::Axis;
use crate::font;
use crate::scene::{Anchor, Colour, Item, Scene};

/// A picture of several panels under one title and legend.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// Above all.
    pub title: String,
    /// What the strokes mean that several panels share; none is drawn where there is one entry or none.
    pub legend: Vec<(String, Stroke)>,
    /// In reading order; two narrow ones share a row.
    pub panels: Vec<Panel>,
}

/// One pair of axes, or one row of bars.
#[derive(Clone, Debug)]
pub enum Panel {
    /// Curves over a common axis.
    Curves(Curves),
    /// Bars by category.
    Bars(Bars),
}

/// Curves over a common axis.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    /// Above the panel.
    pub title: String,
    /// Below the horizontal axis.
    pub x_label: String,
    /// Beside the vertical axis, with its unit.
    pub y_label: String,
    /// Whether the vertical axis is logarithmic (where all values are positive).
    pub logarithmic: bool,
    /// Whether the vertical axis begins at 0.
    pub from_zero: bool,
    /// Whether the panel takes a whole row.
    pub wide: bool,
    /// The first lowest.
    pub curves: Vec<Curve>,
}

/// One curve.
#[derive(Clone, Debug)]
pub struct Curve {
    /// By x.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub stroke: Stroke,
    /// Whether the vertical axis must cover it; one that may leave it is cut there.
    pub decides_axis: bool,
    /// Words at its end.
    pub label: Option<String>,
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stroke {
    /// Its colour.
    pub colour: Colour,
    /// Its width in pixels.
    pub width: f64,
    /// From 0, invisible, to 1.
    pub opacity: f64,
    /// Whether it is broken.
    pub dashed: bool,
}

/// Bars in groups, one group for each category.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    /// Above the panel.
    pub title: String,
    /// Beside the vertical axis, with its unit.
    pub y_label: String,
    /// Below the bars.
    pub categories: Vec<String>,
    /// Name, colour and one value for each category.
    pub series: Vec<(String, Colour, Vec<Option<f64>>)>,
}

/// Colours that people with any colour vision can tell apart (Okabe and Ito, 2008), the strongest first.
const COLOURS: [Colour; 7] = [
    Colour(0x00, 0x72, 0xb2),
    Colour(0xd5, 0x5e, 0x00),
    Colour(0x00, 0x9e, 0x73),
    Colour(0xcc, 0x79, 0xa7),
    Colour(0xe6, 0x9f, 0x00),
    Colour(0x56, 0xb4, 0xe9),
    Colour(0x30, 0x30, 0x30),
];

/// The colour of the n-th of several things, and whether its lines are broken because the colours have begun again.
pub fn colour(index: usize) -> (Colour, bool) {
    (COLOURS[index % COLOURS.len()], (index / COLOURS.len()) % 2 == 1)
}

const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 28.0;
const BETWEEN: f64 = 28.0;
const WIDE_HEIGHT: f64 = 340.0;
const NARROW_HEIGHT: f64 = 260.0;

const INK: Colour = Colour(0x22, 0x26, 0x2b);
const QUIET: Colour = Colour(0x5f, 0x68, 0x72);
const GRID: Colour = Colour(0xe4, 0xe7, 0xeb);
const AXIS: Colour = Colour(0x9a, 0xa3, 0xad);

/// A rectangle.
#[derive(Clone, Copy)]
struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Figure {
    /// The figure in pixels.
    pub fn scene(&self) -> Scene {
        let mut items = Vec::new();
        let mut top = MARGIN + 14.0;
        text(&mut items, (MARGIN, top), &self.title, 19.0, Anchor::Start, INK, true);
        top += 14.0;
        if self.legend.len() > 1 {
            top = legend(&mut items, &self.legend, top + 12.0);
        }
        let mut panels = self.panels.iter().peekable();
        while let Some(panel) = panels.next() {
            top += 10.0;
            let second = if panel.is_wide() { None } else { panels.next_if(|next| !next.is_wide()) };
            let height = if panel.is_wide() { WIDE_HEIGHT } else { NARROW_HEIGHT };
            let half = (WIDTH - 2.0 * MARGIN - BETWEEN) / 2.0;
            let right = if second.is_some() { MARGIN + half } else { WIDTH - MARGIN };
            let area = Area { left: MARGIN, top, right, bottom: top + height };
            panel.draw(&mut items, area);
            if let Some(second) = second {
                second.draw(&mut items, Area { left: right + BETWEEN, right: WIDTH - MARGIN, ..area });
            }
            top += height;
        }
        Scene { width: WIDTH as u32, height: (top + MARGIN / 2.0) as u32, items }
    }
}

/// Entries in rows; returns where they end.
fn legend(items: &mut Vec<Item>, entries: &[(String, Stroke)], top: f64) -> f64 {
    let (mut x, mut y) = (MARGIN, top);
    for (name, stroke) in entries {
        let width = 26.0 + 8.0 + font::width(name, 13.0) + 26.0;
        if x + width > WIDTH - MARGIN && x > MARGIN {
            (x, y) = (MARGIN, y + 20.0);
        }
        line(items, vec![(x, y - 4.0), (x + 26.0, y - 4.0)], Stroke { opacity: 1.0, width: 2.5, ..*stroke });
        text(items, (x + 34.0, y), name, 13.0, Anchor::Start, INK, false);
        x += width;
    }
    y + 8.0
}

impl Panel {
    fn is_wide(&self) -> bool {
        match self {
            Panel::Curves(curves) => curves.wide,
            Panel::Bars(_) => true,
        }
    }

    fn draw(&self, items: &mut Vec<Item>, area: Area) {
        match self {
            Panel::Curves(curves) => curves.draw(items, area),
            Panel::Bars(bars) => bars.draw(items, area),
        }
    }
}

/// The part of a panel inside its axes.
fn inner(area: Area, right: f64, bottom: f64) -> Area {
    Area {
        left: area.left + 62.0,
        top: area.top + 34.0,
        right: area.right - right,
        bottom: area.bottom - bottom,
    }
}

/// Title, vertical axis with grid.
fn frame(items: &mut Vec<Item>, area: Area, inner: Area, title: &str, y_label: &str, y: &Axis) {
    text(items, (area.left, area.top + 18.0), title, 14.5, Anchor::Start, INK, true);
    for (value, words) in y.ticks(((inner.bottom - inner.top) / 42.0) as usize) {
        let at = y.place(value);
        let stroke = Stroke { colour: GRID, width: 1.0, opacity: 1.0, dashed: false };
        line(items, vec![(inner.left, at), (inner.right, at)], stroke);
        text(items, (inner.left - 8.0, at + 4.0), &words, 11.5, Anchor::End, QUIET, false);
    }
    items.push(Item::Text {
        x: area.left + 12.0,
        y: (inner.top + inner.bottom) / 2.0,
        text: y_label.to_string(),
        size: 12.0,
        anchor: Anchor::Middle,
        colour: QUIET,
        bold: false,
        turned: true,
    });
}

impl Curves {
    fn draw(&self, items: &mut Vec<Item>, area: Area) {
        let labelled = self.curves.iter().any(|curve| curve.label.is_some());
        let inner = inner(area, if labelled { 40.0 } else { 8.0 }, 44.0);
        let (x_low, x_high) = extent(self.curves.iter().flat_map(|curve| &curve.points).map(|point| point.0));
        let deciding =
            || self.curves.iter().filter(|curve| curve.decides_axis).flat_map(|curve| &curve.points);
        let (mut low, mut high) = extent(deciding().map(|point| point.1));
        let logarithmic = self.logarithmic && low > 0.0;
        if self.from_zero && !logarithmic {
            low = low.min(0.0);
        } else if logarithmic {
            (low, high) = (low / 1.06, high * 1.06);
        }
        let y = Axis::new(low, high, logarithmic, inner.bottom, inner.top).rounded(6);
        // What begins near the beginning shows all from there.
        let x_low = if x_low >= 0.0 && x_low <= 0.15 * x_high { 0.0 } else { x_low };
        let x = Axis::new(x_low, x_high, false, inner.left, inner.right);
        frame(items, area, inner, &self.title, &self.y_label, &y);
        let axis = Stroke { colour: AXIS, width: 1.0, opacity: 1.0, dashed: false };
        line(items, vec![(inner.left, inner.bottom), (inner.right, inner.bottom)], axis);
        for (value, words) in x.ticks(((inner.right - inner.left) / 90.0) as usize) {
            let at = x.place(value);
            line(items, vec![(at, inner.bottom), (at, inner.bottom + 4.0)], axis);
            text(items, (at, inner.bottom + 18.0), &words, 11.5, Anchor::Middle, QUIET, false);
        }
        let middle = (inner.left + inner.right) / 2.0;
        text(items, (middle, inner.bottom + 35.0), &self.x_label, 12.0, Anchor::Middle, QUIET, false);
        for curve in &self.curves {
            let finite = curve.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
            let points: Vec<(f64, f64)> = finite.map(|(a, b)| (x.place(*a), y.place(*b))).collect();
            match points[..] {
                [] => {}
                [(x, y)] => items.push(Item::Dot { x, y, radius: 2.5, colour: curve.stroke.colour }),
                _ => line(items, thinned(points), curve.stroke),
            }
        }
        end_labels(items, &self.curves, &x, &y, inner);
    }
}

/// Names at the ends of curves, pushed apart where they would cover each other.
fn end_labels(items: &mut Vec<Item>, curves: &[Curve], x: &Axis, y: &Axis, inner: Area) {
    const SIZE: f64 = 10.0;
    let mut labels: Vec<(f64, f64, &str, Colour)> = curves
        .iter()
        .filter_map(|curve| {
            let (last_x, last_y) = *curve.points.last()?;
            Some((y.place(last_y), x.place(last_x), curve.label.as_deref()?, curve.stroke.colour))
        })
        .collect();
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let height = f64::min(SIZE + 0.6, (inner.bottom - inner.top + SIZE) / labels.len().max(1) as f64);
    for index in 1..labels.len() {
        labels[index].0 = labels[index].0.max(labels[index - 1].0 + height);
    }
    let mut floor = inner.bottom + 2.0;
    for label in labels.iter_mut().rev() {
        label.0 = label.0.min(floor);
        floor = label.0 - height;
    }
    for (at, x, words, colour) in labels {
        text(items, (x + 6.0, at + SIZE * 0.35), words, SIZE, Anchor::Start, colour, false);
    }
}

impl Bars {
    fn draw(&self, items: &mut Vec<Item>, area: Area) {
        let inner = inner(area, 8.0, 30.0);
        let values = self.series.iter().flat_map(|(_, _, values)| values.iter().flatten().copied());
        let (_, high) = extent(values);
        let y = Axis::new(0.0, high.max(0.0), false, inner.bottom, inner.top).rounded(6);
        frame(items, area, inner, &self.title, &self.y_label, &y);
        let group = (inner.right - inner.left) / self.categories.len().max(1) as f64;
        let bar = (group * 0.8 / self.series.len().max(1) as f64).min(28.0);
        for (index, category) in self.categories.iter().enumerate() {
            let middle = inner.left + (index as f64 + 0.5) * group;
            let left = middle - bar * self.series.len() as f64 / 2.0;
            for (place, (_, colour, values)) in self.series.iter().enumerate() {
                if let Some(value) = values.get(index).copied().flatten().filter(|value| value.is_finite()) {
                    let top = y.place(value.max(0.0));
                    let x = left + place as f64 * bar;
                    items.push(Item::Rectangle {
                        x,
                        y: top,
                        width: (bar - 1.0).max(bar * 0.8),
                        height: (inner.bottom - top).max(0.5),
                        colour: *colour,
                    });
                }
            }
            text(items, (middle, inner.bottom + 17.0), category, 11.5, Anchor::Middle, INK, false);
        }
        let axis = Stroke { colour: AXIS, width: 1.0, opacity: 1.0, dashed: false };
        line(items, vec![(inner.left, inner.bottom), (inner.right, inner.bottom)], axis);
        // Its own legend, at the right end of the title's line.
        let mut right = inner.right;
        for (name, colour, _) in self.series.iter().rev() {
            text(items, (right, area.top + 18.0), name, 12.0, Anchor::End, INK, false);
            right -= font::width(name, 12.0) * 1.04 + 17.0;
            items.push(Item::Rectangle {
                x: right,
                y: area.top + 8.0,
                width: 11.0,
                height: 11.0,
                colour: *colour,
            });
            right -= 18.0;
        }
    }
}

fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// Of many points within one pixel's width: the first, the lowest, the highest and the last.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= 2400 {
        return points;
    }
    let mut out: Vec<(f64, f64)> = Vec::new();
    for column in points.chunk_by(|a, b| a.0.floor() == b.0.floor()) {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (first, last) = (column[0], column[column.len() - 1]);
        let lowest = column.iter().min_by(by_height).copied().unwrap_or(first);
        let highest = column.iter().max_by(by_height).copied().unwrap_or(first);
        let (one, two) = if lowest.0 <= highest.0 { (lowest, highest) } else { (highest, lowest) };
        for point in [first, one, two, last] {
            if out.last() != Some(&point) {
                out.push(point);
            }
        }
    }
    out
}

fn line(items: &mut Vec<Item>, points: Vec<(f64, f64)>, stroke: Stroke) {
    let Stroke { colour, width, opacity, dashed } = stroke;
    items.push(Item::Line { points, colour, width, opacity, dash: dashed.then_some((6.0, 3.0)) });
}

fn text(
    items: &mut Vec<Item>,
    (x, y): (f64, f64),
    words: &str,
    size: f64,
    anchor: Anchor,
    colour: Colour,
    bold: bool,
) {
    items.push(Item::Text { x, y, text: words.to_string(), size, anchor, colour, bold, turned: false });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(points: usize) -> Figure {
        let stroke = Stroke { colour: colour(0).0, width: 1.5, opacity: 1.0, dashed: false };
        let points = (0..points).map(|i| (i as f64, 3.0 + (i as f64 * 0.37).sin())).collect();
        let curve = Curve { points, stroke, decides_axis: true, label: Some("ελ".into()) };
        let curves = Curves { title: "Loss".into(), curves: vec![curve], ..Curves::default() };
        let values = vec![Some(1.0), None, Some(f64::NAN)];
        let bars = Bars {
            categories: vec!["bg".into(), "mt".into(), "ga".into()],
            series: vec![("model".into(), colour(1).0, values)],
            ..Bars::default()
        };
        let panels = vec![Panel::Curves(curves.clone()), Panel::Curves(curves), Panel::Bars(bars)];
        Figure { title: "a & b".into(), legend: Vec::new(), panels }
    }

    #[test]
    fn every_item_lies_in_the_picture() {
        for points in [0, 1, 2, 100, 50_000] {
            let scene = figure(points).scene();
            let svg = scene.to_svg();
            assert!(svg.contains("a &amp; b") && svg.len() < 200_000, "{}", svg.len());
            for item in &scene.items {
                let places = match item {
                    Item::Line { points, .. } => points.clone(),
                    Item::Rectangle { x, y, .. } | Item::Dot { x, y, .. } | Item::Text { x, y, .. } => {
                        vec![(*x, *y)]
                    }
                };
                for (x, y) in places {
                    assert!(
                        (0.0..=1200.0).contains(&x) && (0.0..=f64::from(scene.height)).contains(&y),
                        "{item:?}"
                    );
                }
            }
        }
        assert!(figure(100).scene().to_png(1).len() > 1000);
        assert_eq!(figure(100).scene().to_png(1), figure(100).scene().to_png(1));
    }
}
