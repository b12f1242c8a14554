//! Where a request comes from: the other end of the connection, or what a proxy that the operator trusts says of it.

use std::net::IpAddr;

use axum::http::HeaderMap;

use crate::settings::Network;

/// The address of the client. `X-Forwarded-For` is a list to which each proxy adds whom it was asked by, so it is read
/// from its end, for as long as whoever added to it is trusted.
pub fn client_address(connected: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut address = connected.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    for hop in hops.into_iter().rev() {
        if !is_trusted(address) {
            break;
        }
        match hop.parse::<IpAddr>() {
            Ok(before) => address = before.to_canonical(),
            Err(_) => break,
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_counts_as_far_as_its_writers_are_trusted() {
        let check = |connected: &str, header: Option<&str>, expected: &str| {
            let trusted = ["10.0.0.0/8", "::1"].map(|text| text.parse::<Network>().unwrap());
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("x-forwarded-for", header.parse().unwrap());
            }
            let found = client_address(connected.parse().unwrap(), &headers, &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{connected} {header:?}");
        };
        check("192.0.2.7", None, "192.0.2.7");
        check("192.0.2.7", Some("203.0.113.1"), "192.0.2.7");
        check("10.1.1.1", None, "10.1.1.1");
        check("10.1.1.1", Some("203.0.113.1"), "203.0.113.1");
        check("::1", Some("203.0.113.1"), "203.0.113.1");
        // What the client itself wrote stands first and counts for nothing.
        check("10.1.1.1", Some("127.0.0.1, 203.0.113.1"), "203.0.113.1");
        check("10.1.1.1", Some("198.51.100.1, 203.0.113.1, 10.2.2.2"), "203.0.113.1");
        check("10.1.1.1", Some("nonsense"), "10.1.1.1");
    }
}
