//! IP packets as bytes: who they are for, and checksums. Total functions: any bytes in, no panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol numbers.
pub(crate) const TCP: u8 = 6;
/// See [`TCP`].
pub(crate) const UDP: u8 = 17;

/// Where a packet goes. `None`: neither IPv4 nor IPv6.
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(Ipv4Addr::from(array::<4>(packet, 16)?).into()),
        6 => Some(Ipv6Addr::from(array::<16>(packet, 24)?).into()),
        _ => None,
    }
}

/// `N` bytes from `at`.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A number of 16 bits in network order; 0 beyond the end.
pub(crate) fn get16(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_be_bytes)
}

/// A number of 32 bits in network order; 0 beyond the end.
pub(crate) fn get32(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_be_bytes)
}

/// Writes a number of 16 bits in network order; nothing beyond the end.
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// The sum of all 16-bit words (RFC 1071), folded, added to `start`; an odd last byte counts as the high half of a word.
pub(crate) fn sum(bytes: &[u8], start: u32) -> u32 {
    // Native order: the sum of swapped words is the swapped sum. Four lanes keep the adders busy; no carry is lost in 64 bits of 32.
    let mut lanes = [0u64; 4];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            let (sum, carry) = lane.overflowing_add(u64::from_ne_bytes(std::array::from_fn(|i| word[i])));
            *lane = sum + u64::from(carry);
        }
    }
    let mut total = lanes.iter().fold(0u64, |total, lane| total + (lane & 0xffff_ffff) + (lane >> 32));
    let mut words = blocks.remainder().chunks_exact(2);
    for word in &mut words {
        total += u64::from(u16::from_ne_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    start + u32::from((total as u16).to_be())
}

/// Brings a sum down to 16 bits.
pub(crate) fn fold(mut sum: u32) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of the pseudo header of a packet whose upper layer has `length` bytes (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub(crate) fn pseudo(packet: &[u8], protocol: u8, length: usize) -> u32 {
    let addresses = if packet.first().is_some_and(|byte| byte >> 4 == 4) { 12..20 } else { 8..40 };
    let rest = u32::from(protocol) + (length as u32 & 0xffff) + (length as u32 >> 16);
    sum(packet.get(addresses).unwrap_or_default(), rest)
}

/// Writes the checksum of an IPv4 header of `length` bytes.
pub(crate) fn finish_ipv4(packet: &mut [u8], length: usize) {
    put16(packet, 10, 0);
    let checksum = !fold(sum(packet.get(..length).unwrap_or_default(), 0));
    put16(packet, 10, checksum);
}

#[cfg(test)]
mod tests {
    use super::{destination, fold, sum};

    fn naive(bytes: &[u8]) -> u16 {
        fold(bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).copied().map_or(0, u32::from)).fold(
            0,
            |sum, word| {
                let sum = sum + word;
                (sum & 0xffff) + (sum >> 16)
            },
        ))
    }

    #[test]
    fn the_fast_sum_is_the_plain_one() {
        let bytes: Vec<u8> = (0..2000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for length in 0..bytes.len() {
            assert_eq!(fold(sum(&bytes[..length], 0)), naive(&bytes[..length]), "{length} bytes");
        }
        // The most carries there can be.
        let ones = vec![0xff; 65_535];
        assert_eq!(fold(sum(&ones, 0xffff)), fold(u32::from(naive(&ones)) + 0xffff));
    }

    #[test]
    fn destinations_are_read_or_refused() {
        let mut packet = [0u8; 40];
        assert_eq!(destination(&packet), None);
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[10, 1, 2, 3]);
        assert_eq!(destination(&packet), Some("10.1.2.3".parse().unwrap()));
        assert_eq!(destination(&packet[..19]), None);
        packet[0] = 0x60;
        packet[24..40].copy_from_slice(&[0xfd; 16]);
        assert_eq!(destination(&packet), Some("fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd".parse().unwrap()));
        assert_eq!(destination(&packet[..39]), None);
        assert_eq!(destination(&[]), None);
    }
}
