//! What an optimiser remembers of the gradients, in f32 or rounded to bf16: half the memory, at eight bits of precision.

use super::Device;
use super::cpu::Shared;
use super::memory::{Buffer, Element};
use crate::path::vectorised;
use std::borrow::Cow;
use std::ops::Range;

/// A bfloat16: the upper half of an f32. Storage only; arithmetic is f32's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bf16(u16);

impl Element for Bf16 {}

impl Bf16 {
    /// The nearest bf16, ties to even; NaN stays NaN.
    #[inline(always)]
    pub fn from_f32(x: f32) -> Bf16 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        Bf16(if x.is_nan() { ((bits >> 16) | 0x40) as u16 } else { rounded as u16 })
    }

    /// Exactly this number.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        f32::from_bits((self.0 as u32) << 16)
    }
}

/// How moments are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MomentFormat {
    /// As they are computed.
    #[default]
    F32,
    /// Rounded after each step.
    Bf16,
}

/// One moment of each parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Moments {
    /// As they are computed.
    F32(Buffer),
    /// Rounded after each step.
    Bf16(Buffer<Bf16>),
}

impl Default for Moments {
    fn default() -> Self {
        Moments::F32(Buffer::default())
    }
}

impl Moments {
    /// Zeros.
    pub fn zeros(device: &Device, length: usize, format: MomentFormat) -> Moments {
        match format {
            MomentFormat::F32 => Moments::F32(device.zeros(length)),
            MomentFormat::Bf16 => Moments::Bf16(device.zeros(length)),
        }
    }

    /// From numbers on the host, rounded where the format asks for it.
    pub fn upload(device: &Device, values: Vec<f32>, format: MomentFormat) -> Moments {
        match format {
            MomentFormat::F32 => Moments::F32(device.upload(values)),
            MomentFormat::Bf16 => {
                Moments::Bf16(device.upload(values.into_iter().map(Bf16::from_f32).collect()))
            }
        }
    }

    /// The numbers on the host; without a copy where the device's memory is the host's and they are f32.
    pub fn lend<'a>(&'a self, device: &Device) -> Cow<'a, [f32]> {
        match self {
            Moments::F32(values) => device.lend(values.at(..)),
            Moments::Bf16(values) => device.lend(values.at(..)).iter().map(|value| value.to_f32()).collect(),
        }
    }

    /// How they are stored.
    pub fn format(&self) -> MomentFormat {
        match self {
            Moments::F32(_) => MomentFormat::F32,
            Moments::Bf16(_) => MomentFormat::Bf16,
        }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        match self {
            Moments::F32(values) => values.len(),
            Moments::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn share(&mut self) -> SharedMoments<'_> {
        match self {
            Moments::F32(values) => SharedMoments::F32(Shared::new(values.at_mut(..).elements)),
            Moments::Bf16(values) => SharedMoments::Bf16(Shared::new(values.at_mut(..).elements)),
        }
    }
}

/// Moments that several threads move, each in stretches of its own.
pub(super) enum SharedMoments<'a> {
    F32(Shared<'a, f32>),
    Bf16(Shared<'a, Bf16>),
}

impl SharedMoments<'_> {
    /// Runs `work` on the moments of a stretch as f32, in place or in `buffer`, and stores what it leaves.
    ///
    /// # Safety
    /// No other stretch that is being worked on overlaps this one.
    pub unsafe fn with(&self, span: Range<usize>, buffer: &mut Vec<f32>, work: impl FnOnce(&mut [f32])) {
        match self {
            // SAFETY: the caller's promise.
            SharedMoments::F32(values) => work(unsafe { values.span(span) }),
            SharedMoments::Bf16(values) => {
                // SAFETY: the caller's promise.
                let stored = unsafe { values.span(span) };
                if buffer.len() < stored.len() {
                    buffer.resize(stored.len(), 0.0);
                }
                let buffer = &mut buffer[..stored.len()];
                widen(stored, buffer);
                work(buffer);
                round(buffer, stored);
            }
        }
    }
}

vectorised! {
    fn widen(stored: &[Bf16], values: &mut [f32]) {
        for (value, stored) in values.iter_mut().zip(stored) {
            *value = stored.to_f32();
        }
    }
}

vectorised! {
    fn round(values: &[f32], stored: &mut [Bf16]) {
        for (stored, value) in stored.iter_mut().zip(values) {
            *stored = Bf16::from_f32(*value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_the_nearest_and_ties_to_even() {
        for (x, expected) in [
            (0.0, 0.0),
            (-0.0, -0.0),
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
            (1.0 + 1.1 / 256.0, 1.0 + 2.0 / 256.0),
            (-3.0e38, f32::from_bits(0xff62_0000)),
            (f32::MAX, f32::INFINITY),
            (f32::INFINITY, f32::INFINITY),
        ] {
            let found = Bf16::from_f32(x).to_f32();
            assert_eq!(found.to_bits(), f32::to_bits(expected), "{x}: {found}");
            assert_eq!(Bf16::from_f32(found).to_f32().to_bits(), found.to_bits(), "what is stored stays");
        }
        assert!(Bf16::from_f32(f32::NAN).to_f32().is_nan());
        assert!(Bf16::from_f32(f32::from_bits(0x7f80_0001)).to_f32().is_nan());
    }
}
