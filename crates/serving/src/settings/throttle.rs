//! How many wrong credentials are too many, and who is believed about where a request comes from.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::at_least;
use crate::error::ServingError;

/// Wrong credentials within a minute, before who shows them has to wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ThrottleSettings {
    /// From one address.
    pub failures_per_minute: u32,
    /// From all together; beyond that, each address gets one.
    pub overall_failures_per_minute: u32,
}

impl Default for ThrottleSettings {
    fn default() -> Self {
        ThrottleSettings { failures_per_minute: 20, overall_failures_per_minute: 1_000 }
    }
}

impl ThrottleSettings {
    /// Refuses what would shut everybody out after one slip.
    pub fn check(&self) -> Result<(), ServingError> {
        at_least("throttle.failures_per_minute", u64::from(self.failures_per_minute), 1)?;
        at_least("throttle.overall_failures_per_minute", u64::from(self.overall_failures_per_minute), 1)
    }
}

/// An address, or all that begin with the same bits: `192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, length) = number(self.address);
        let (other, other_length) = number(address.to_canonical());
        // Shifted out as a whole, nothing is left to differ.
        length == other_length && (own ^ other).checked_shr(length - self.bits).unwrap_or(0) == 0
    }
}

/// The address as a number of so many bits.
fn number(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let trouble = || format!("expected an address or a network such as 10.0.0.0/8, found {text:.60}");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().map_err(|_| trouble())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| trouble())?;
        let length = number(address).1;
        let bits = bits.unwrap_or(length);
        if bits > length { Err(trouble()) } else { Ok(Network { address, bits }) }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        format!("{}/{}", network.address, network.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            let found = network.parse::<Network>().unwrap().contains(address.parse().unwrap());
            assert_eq!(found, inside, "{network} {address}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/-1", "host"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
