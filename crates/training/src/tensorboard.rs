//! TensorBoard event files, so that a run can be watched with a tool that people have.
//!
//! The file is a sequence of records (TFRecord): length, masked CRC-32C of the length, data, masked CRC-32C of the data. The
//! data is a protobuf `Event` with a `Summary` of plain numbers. Of protobuf no more is needed than these few fields, so they
//! are written by hand: <https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto>.
//!
//! Everything is made from the lines of `metrics.jsonl`: the event file of a resumed run is that of its lines.

use serde_json::Value;

/// The name holds `tfevents`, by which TensorBoard finds it.
pub(crate) const EVENTS_FILE: &str = "events.out.tfevents.eulalia";

/// What every event file begins with.
pub(crate) fn opening() -> Vec<u8> {
    let mut event = Vec::new();
    double(&mut event, 1, 0.0);
    bytes(&mut event, 3, b"brain.Event:2");
    record(&event)
}

/// The event of one line of metrics, or nothing where it holds no number that is shown.
pub(crate) fn event(line: &Value) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, number) in scalars(line) {
        let mut value = Vec::new();
        bytes(&mut value, 1, tag.as_bytes());
        value.push(2 << 3 | 5);
        value.extend((number as f32).to_le_bytes());
        bytes(&mut summary, 1, &value);
    }
    if summary.is_empty() {
        return Vec::new();
    }
    let mut event = Vec::new();
    double(&mut event, 1, line["time"].as_f64().unwrap_or(0.0));
    event.push(2 << 3);
    varint(&mut event, line["step"].as_u64().unwrap_or(0));
    bytes(&mut event, 5, &summary);
    record(&event)
}

/// Names and numbers of a line, as TensorBoard groups them.
fn scalars(line: &Value) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    for (key, tag) in [
        ("loss", "train/loss"),
        ("gradient_norm", "train/gradient_norm"),
        ("learning_rate", "train/learning_rate"),
        ("skipped", "train/skipped"),
        ("tokens_per_second", "machine/tokens_per_second"),
        ("peak_share", "machine/peak_share"),
        ("memory_bytes", "machine/memory_bytes"),
        ("energy_joules", "machine/energy_joules"),
    ] {
        let number = line[key].as_f64().or_else(|| line[key].as_bool().map(|flag| f64::from(u8::from(flag))));
        if let Some(number) = number {
            found.push((tag.to_string(), number));
        }
    }
    for (key, group) in [("heldout_bits_per_byte", "heldout_bits_per_byte")] {
        for (language, number) in line[key].as_object().into_iter().flatten() {
            found.extend(number.as_f64().map(|number| (format!("{group}/{language}"), number)));
        }
    }
    for (layer, number) in line["expert_load_max_over_mean"].as_array().into_iter().flatten().enumerate() {
        found.extend(number.as_f64().map(|number| (format!("expert_load_max_over_mean/{layer}"), number)));
    }
    found
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_crc32c(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc32c(data).to_le_bytes());
    record
}

fn varint(target: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        target.push(number as u8 | 0x80);
        number >>= 7;
    }
    target.push(number as u8);
}

fn bytes(target: &mut Vec<u8>, field: u8, content: &[u8]) {
    target.push(field << 3 | 2);
    varint(target, content.len() as u64);
    target.extend(content);
}

fn double(target: &mut Vec<u8>, field: u8, number: f64) {
    target.push(field << 3 | 1);
    target.extend(number.to_le_bytes());
}

/// A checksum of something that contains checksums, as the format masks it.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit from a table of one byte (RFC 3720, appendix B.4).
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !data.iter().fold(!0, |crc: u32, &byte| crc >> 8 ^ TABLE[((crc ^ u32::from(byte)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4: 32 bytes of zeros, 32 of ones; and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_line_becomes_one_event() {
        let event = event(&json!({
            "step": 300, "time": 2.5, "loss": 1.5, "heldout_bits_per_byte": {"mt": 3.0}, "expert_load_max_over_mean": [1.25],
        }));
        let length = u64::from_le_bytes(event[..8].try_into().unwrap()) as usize;
        assert_eq!(event.len(), length + 16);
        let data = &event[12..12 + length];
        // wall_time = 2.5, step = 300 as a varint, then the summary.
        assert_eq!(data[..13], [9, 0, 0, 0, 0, 0, 0, 4, 64, 16, 0xac, 2, 5 << 3 | 2]);
        let text = String::from_utf8_lossy(data);
        for tag in ["train/loss", "heldout_bits_per_byte/mt", "expert_load_max_over_mean/0"] {
            assert!(text.contains(tag), "{tag}");
        }
        let loss = [&b"train/loss"[..], &[2 << 3 | 5], &1.5f32.to_le_bytes()].concat();
        assert!(data.windows(loss.len()).any(|window| window == loss));
        assert!(super::event(&json!({"step": 1, "note": "nothing to show"})).is_empty());
    }
}
