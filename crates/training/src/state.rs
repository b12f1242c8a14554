//! What a run is between two steps: everything that the next one depends on.

use compute::{Buffer, Device};

/// The state of a run, on its device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// What is trained.
    pub parameters: Buffer,
    /// First moments.
    pub first: Buffer,
    /// Second moments (AdamW's; Muon has none).
    pub second: Buffer,
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
            first: device.zeros(length),
            second: device.zeros(length),
            average: None,
            losses: Vec::new(),
        }
    }
}
