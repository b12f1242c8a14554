//! What is to be drawn, in pixels from the upper left corner: in order, the later above the earlier.

use crate::{png, svg};

/// Red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(pub u8, pub u8, pub u8);

/// Where a text begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    /// A broken line through points.
    Line {
        points: Vec<(f64, f64)>,
        colour: Colour,
        width: f64,
        opacity: f64,
        /// Lengths of a dash and a gap.
        dash: Option<(f64, f64)>,
    },
    /// A filled rectangle.
    Rectangle { x: f64, y: f64, width: f64, height: f64, colour: Colour },
    /// A filled circle.
    Dot { x: f64, y: f64, radius: f64, colour: Colour },
    /// Words; `y` is their base line. Turned, they run upwards.
    Text { x: f64, y: f64, text: String, size: f64, anchor: Anchor, colour: Colour, bold: bool, turned: bool },
}

/// A finished picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    pub(crate) items: Vec<Item>,
}

impl Scene {
    /// The picture as an SVG document.
    pub fn to_svg(&self) -> String {
        svg::write(self)
    }

    /// The picture as a PNG file, `scale` of its pixels for each of the scene's.
    pub fn to_png(&self, scale: u32) -> Vec<u8> {
        png::paint(self, scale)
    }
}
