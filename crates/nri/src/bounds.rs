//! How many things a message may hold. Two bytes of protobuf can become hundreds in memory, so they are counted first.

/// Most fields of one message, those of the messages in it included.
const MAX_FIELDS: usize = 64 << 10;
/// How deep messages are looked into; below that nothing repeats in this interface.
const DEPTH: usize = 5;

/// Whether a message may be decoded. What is text may look like a message here and be counted too, never the other way
/// round.
///
/// # Errors
/// How many fields it would have been, at least.
pub fn check(message: &[u8]) -> Result<(), usize> {
    let mut count = 0;
    walk(message, 0, &mut count);
    if count > MAX_FIELDS { Err(count) } else { Ok(()) }
}

/// Counts until something is no protobuf or there is too much.
fn walk(mut rest: &[u8], depth: usize, count: &mut usize) {
    while let Some(key) = varint(&mut rest) {
        *count += 1;
        if *count > MAX_FIELDS {
            return;
        }
        let skip = match key & 7 {
            0 => match varint(&mut rest) {
                Some(_) => 0,
                None => return,
            },
            1 => 8,
            5 => 4,
            2 => {
                let length = varint(&mut rest).and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= rest.len());
                let Some(length) = length else { return };
                if depth < DEPTH {
                    walk(&rest[..length], depth + 1, count);
                }
                length
            }
            _ => return,
        };
        let Some(left) = rest.get(skip..) else { return };
        rest = left;
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (place, byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(place).ok()?)?;
        if byte & 0x80 == 0 {
            *rest = &rest[place + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto;

    #[test]
    fn what_is_real_passes() {
        let resources = proto::LinuxResources { unified: [("memory.high".into(), "1".into())].into(), ..Default::default() };
        let linux = proto::LinuxContainerUpdate { resources: Some(resources) };
        let update = proto::ContainerUpdate { container_id: "ab".repeat(32), linux: Some(linux), ignore_failure: true };
        let response = proto::SynchronizeResponse { update: vec![update; 1000], more: false };
        assert_eq!(check(&response.encode_to_vec()), Ok(()));
        assert_eq!(check(b""), Ok(()));
    }

    #[test]
    fn what_would_swell_does_not() {
        assert!(check(&[0x0a, 0x00].repeat(MAX_FIELDS + 1)).is_err());
        let nested = |inner: Vec<u8>| {
            let mut outer = vec![0x0a];
            prost::encoding::encode_varint(inner.len() as u64, &mut outer);
            outer.extend(inner);
            outer
        };
        assert!(check(&nested(nested([0x12, 0x00].repeat(MAX_FIELDS)))).is_err());
    }

    #[test]
    fn garbage_ends_the_counting() {
        for garbage in [&[0xff; 40][..], &[0x0a, 0xff, 0xff], &[0x09, 1], &[0x0f], &[0x08]] {
            assert_eq!(check(garbage), Ok(()), "{garbage:x?}");
        }
    }
}
