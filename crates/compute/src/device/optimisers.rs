//! What moves parameters on a device: AdamW over stretches, Muon over whole matrices, and their running average.

use super::Device;
use super::cpu::{OptimiserScratch, Shared};
use super::memory::{View, ViewMut};
use super::moments::Moments;
use crate::muon::{MuonStep, muon};
use crate::optimiser::{AdamWStep, adamw};
use crate::path::vectorised;
use std::ops::Range;

/// How a stretch of parameters is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// AdamW, with the step's decay or without.
    AdamW {
        /// Whether the weights decay.
        decays: bool,
    },
    /// Muon, for a whole row-major matrix.
    Muon {
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
}

/// A stretch of parameters that one task takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Stretch {
    /// Its place.
    pub span: Range<usize>,
    /// What moves it.
    pub rule: Rule,
}

impl Device {
    /// Moves `parameters` and their moments by one step, each stretch by its rule (Muon keeps its momentum in `first`).
    ///
    /// # Panics
    /// When stretches overlap or lie outside.
    #[allow(clippy::too_many_arguments)]
    pub fn optimise(
        &self,
        stretches: &[Stretch],
        parameters: ViewMut,
        gradient: View,
        first: &mut Moments,
        second: &mut Moments,
        adamw_step: AdamWStep,
        muon_step: MuonStep,
    ) {
        assert!(
            stretches.windows(2).all(|pair| pair[0].span.end <= pair[1].span.start),
            "stretches that overlap"
        );
        let parameters = Shared::new(parameters.elements);
        let (first, second) = (first.share(), second.share());
        self.cpu.spans(stretches.len(), 1, |index, _| {
            let Stretch { span, rule } = &stretches[index];
            // SAFETY: stretches do not overlap.
            let p = unsafe { parameters.span(span.clone()) };
            let g = &gradient.elements[span.clone()];
            let mut scratch = self.cpu.optimiser();
            let OptimiserScratch { muon: buffers, first: wide_first, second: wide_second } = &mut *scratch;
            // SAFETY: as above.
            let mut with_first =
                |work: &mut dyn FnMut(&mut [f32])| unsafe { first.with(span.clone(), wide_first, work) };
            match *rule {
                Rule::AdamW { decays } => {
                    let weight_decay = if decays { adamw_step.weight_decay } else { 0.0 };
                    let step = AdamWStep { weight_decay, ..adamw_step };
                    with_first(&mut |m| {
                        // SAFETY: as above.
                        unsafe { second.with(span.clone(), wide_second, |v| adamw(p, g, m, v, step)) }
                    });
                }
                Rule::Muon { rows, columns } => {
                    with_first(&mut |m| muon(p, g, m, (rows, columns), muon_step, buffers));
                }
            }
        });
    }

    /// average ← average + weight · (x − average)
    pub fn average(&self, average: ViewMut, x: View, weight: f32) {
        let length = average.len();
        let average = Shared::new(average.elements);
        self.cpu.spans(length, 1 << 15, |_, span| {
            // SAFETY: spans do not overlap.
            approach(unsafe { average.span(span.clone()) }, &x.elements[span], weight);
        });
    }
}

vectorised! {
    /// y ← y + weight · (x − y)
    fn approach(y: &mut [f32], x: &[f32], weight: f32) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = weight.mul_add(x - *y, *y);
        }
    }
}
