//! What a run is between two steps: everything that the next one depends on.

use compute::device::{MomentFormat, Moments};
use compute::{Buffer, Device};

/// The state of a run, on its device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// What is trained.
    pub parameters: Buffer,
    /// First moments.
    pub first: Moments,
    /// Second moments (AdamW's; Muon has none).
    pub second: Moments,
    /// The running average of the parameters, where one is kept.
    pub average: Option<Buffer>,
    /// Loss of each step so far.
    pub losses: Vec<f64>,
}

impl State {
    /// The state before the first step.
    pub fn new(device: &Device, parameters: Vec<f32>) -> State {
        let length = parameters.len();
        State {
            step: 0,
            parameters: device.upload(parameters),
            first: Moments::zeros(device, length, MomentFormat::F32),
            second: Moments::zeros(device, length, MomentFormat::F32),
            average: None,
            losses: Vec::new(),
        }
    }

    /// The same with moments that are stored otherwise.
    ///
    /// # Panics
    /// When steps have been done.
    pub fn with_moments(mut self, device: &Device, format: MomentFormat) -> State {
        assert_eq!(self.step, 0, "moments of a run that has begun");
        let length = self.parameters.len();
        self.first = Moments::zeros(device, length, format);
        self.second = Moments::zeros(device, length, format);
        self
    }
}
