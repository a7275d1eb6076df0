//! Where a namespace's default routes lead, as `/proc/net/route` says it: for the namespace of the thread that opens it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use crate::error::{Error, Result};
use crate::netns::Netns;

const FILE: &str = "/proc/thread-self/net/route";

/// Next hops of the IPv4 default routes of the main table.
pub(crate) fn read(netns: &Netns) -> Result<Vec<IpAddr>> {
    let text = netns.enter(|| fs::read_to_string(FILE))?;
    text.map(|text| parse(&text)).map_err(|error| Error::new(format!("reading {FILE}"), error))
}

/// Columns: interface, destination, gateway, flags, references, uses, metric, mask, ...; addresses as the machine keeps them.
fn parse(text: &str) -> Vec<IpAddr> {
    let gateway = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let number = |index: usize| u32::from_str_radix(columns.get(index)?, 16).ok();
        let is_default = number(1)? == 0 && number(7)? == 0;
        let address = Ipv4Addr::from(number(2)?.to_ne_bytes());
        (is_default && !address.is_unspecified()).then_some(IpAddr::V4(address))
    };
    text.lines().skip(1).filter_map(gateway).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_default_routes_with_a_next_hop_count() {
        let hex = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line = |to: [u8; 4], via: [u8; 4], mask: [u8; 4]| {
            format!("eth0\t{}\t{}\t0003\t0\t0\t100\t{}\t0\t0\t0\n", hex(to), hex(via), hex(mask))
        };
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n".to_owned()
            + &line([0; 4], [172, 30, 0, 1], [0; 4])
            + &line([172, 30, 0, 0], [0; 4], [255, 255, 0, 0])
            + &line([10, 9, 0, 0], [172, 30, 0, 9], [255, 255, 0, 0])
            + &line([0; 4], [0; 4], [0; 4])
            + "rubbish\n";
        assert_eq!(parse(&text), [IpAddr::from([172, 30, 0, 1])]);
    }
}
