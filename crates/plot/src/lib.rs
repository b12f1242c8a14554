//! Pictures of numbers: panels with axes, curves and bars, drawn once as a scene and written as SVG or PNG.
//!
//! `figure` is what a caller says (panels of curves, panels of bars, a legend), `axes` finds round ticks, `scene` is what
//! is left of it: lines, rectangles and words in pixels. `svg` writes a scene with its words as text, `png` paints it,
//! with the letters of `font`. Same figure, same bytes.

mod axes;
mod figure;
mod font;
mod png;
mod scene;
mod svg;

pub use figure::{Bars, Curve, Curves, Figure, Panel, Stroke, colour};
pub use scene::{Colour, Scene};
