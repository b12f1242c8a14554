//! A scene as PNG (ISO/IEC 15948): painted by tiny-skia, written as RGB with the filter that suits flat surfaces.

use crate::font;
use crate::scene::{Anchor, Colour, Item, Scene};
use flate2::{Compression, Crc, write::ZlibEncoder};
use std::io::Write as _;
use tiny_skia::{
    FillRule, LineCap, LineJoin, Paint, PathBuilder, Pixmap, Rect, Stroke, StrokeDash, Transform,
};

pub(crate) fn paint(scene: &Scene, scale: u32) -> Vec<u8> {
    let (width, height) = (scene.width.max(1) * scale.max(1), scene.height.max(1) * scale.max(1));
    let mut pixmap = Pixmap::new(width, height).expect("a picture has some pixels, and fewer than memory");
    pixmap.fill(tiny_skia::Color::WHITE);
    let scale = Transform::from_scale(scale.max(1) as f32, scale.max(1) as f32);
    for item in &scene.items {
        draw(&mut pixmap, item, scale);
    }
    encode(width, height, pixmap.data())
}

fn ink(Colour(red, green, blue): Colour, opacity: f64) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(red, green, blue, (opacity * 255.0).round() as u8);
    paint
}

fn draw(pixmap: &mut Pixmap, item: &Item, scale: Transform) {
    match item {
        Item::Line { points, colour, width, opacity, dash } => {
            let mut builder = PathBuilder::new();
            for (index, (x, y)) in points.iter().enumerate() {
                match index {
                    0 => builder.move_to(*x as f32, *y as f32),
                    _ => builder.line_to(*x as f32, *y as f32),
                }
            }
            let stroke = Stroke {
                width: *width as f32,
                line_join: LineJoin::Round,
                dash: dash.and_then(|(dash, gap)| StrokeDash::new(vec![dash as f32, gap as f32], 0.0)),
                ..Stroke::default()
            };
            if let Some(path) = builder.finish() {
                pixmap.stroke_path(&path, &ink(*colour, *opacity), &stroke, scale, None);
            }
        }
        Item::Rectangle { x, y, width, height, colour } => {
            if let Some(rectangle) = Rect::from_xywh(*x as f32, *y as f32, *width as f32, *height as f32) {
                pixmap.fill_rect(rectangle, &ink(*colour, 1.0), scale, None);
            }
        }
        Item::Dot { x, y, radius, colour } => {
            if let Some(path) = PathBuilder::from_circle(*x as f32, *y as f32, *radius as f32) {
                pixmap.fill_path(&path, &ink(*colour, 1.0), FillRule::Winding, scale, None);
            }
        }
        Item::Text { x, y, text, size, anchor, colour, bold, turned } => {
            let Some(path) = font::strokes(text, *size) else { return };
            let back = match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => font::width(text, *size) / 2.0,
                Anchor::End => font::width(text, *size),
            };
            let stroke = Stroke {
                width: font::stroke_width(*size, *bold) as f32,
                line_cap: LineCap::Round,
                line_join: LineJoin::Round,
                ..Stroke::default()
            };
            let turn = if *turned { -90.0 } else { 0.0 };
            let place =
                scale.pre_translate(*x as f32, *y as f32).pre_rotate(turn).pre_translate(-back as f32, 0.0);
            pixmap.stroke_path(&path, &ink(*colour, 1.0), &stroke, place, None);
        }
    }
}

/// The file of an opaque picture given as RGBA.
fn encode(width: u32, height: u32, rgba: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(rgba.len());
    let mut before = vec![0u8; width as usize * 3];
    for row in rgba.chunks_exact(width as usize * 4) {
        let line: Vec<u8> = row.as_chunks::<4>().0.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect();
        // Filter 2: each byte minus the one above it.
        lines.push(2);
        lines.extend(line.iter().zip(&before).map(|(here, above)| here.wrapping_sub(*above)));
        before = line;
    }
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    // A vector takes everything.
    let _ = packed.write_all(&lines);
    let packed = packed.finish().unwrap_or_default();

    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    // 8 bits, RGB, the only compression and filter method, not interlaced.
    header.extend([8, 2, 0, 0, 0]);
    chunk(&mut file, b"IHDR", &header);
    chunk(&mut file, b"IDAT", &packed);
    chunk(&mut file, b"IEND", &[]);
    file
}

fn chunk(file: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    file.extend(name);
    file.extend(data);
    let mut checksum = Crc::new();
    checksum.update(name);
    checksum.update(data);
    file.extend(checksum.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::ZlibDecoder;
    use std::io::Read as _;

    #[test]
    fn a_red_square_comes_back_as_one() {
        let square = Item::Rectangle { x: 2.0, y: 1.0, width: 2.0, height: 1.0, colour: Colour(255, 0, 0) };
        let file = paint(&Scene { width: 5, height: 3, items: vec![square] }, 2);
        assert_eq!(&file[1..4], b"PNG");
        assert_eq!(file[16..24], [0, 0, 0, 10, 0, 0, 0, 6]);
        let length = u32::from_be_bytes(file[33..37].try_into().unwrap()) as usize;
        let mut lines = Vec::new();
        ZlibDecoder::new(&file[41..41 + length]).read_to_end(&mut lines).unwrap();
        let mut row = [0u8; 30];
        for (index, line) in lines.chunks_exact(31).enumerate() {
            assert_eq!(line[0], 2);
            for (byte, change) in row.iter_mut().zip(&line[1..]) {
                *byte = byte.wrapping_add(*change);
            }
            for (pixel, colour) in row.as_chunks::<3>().0.iter().enumerate() {
                let inside = (2..4).contains(&index) && (4..8).contains(&pixel);
                assert_eq!(*colour, if inside { [255, 0, 0] } else { [255; 3] }, "{pixel}, {index}");
            }
        }
    }
}
