//! As much of protocol buffers as criu's images need (protobuf.dev/programming-guides/encoding): fields by number, without
//! a schema. Reads hostile bytes; allocates nothing.

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'b> {
    /// A number.
    Number(u64),
    /// A string, a message or packed numbers.
    Bytes(&'b [u8]),
}

/// The fields of a message, in order; ends with `Err` where it is damaged.
#[derive(Clone, Debug)]
pub(super) struct Fields<'b>(&'b [u8]);

/// A message that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

impl<'b> Fields<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    fn varint(&mut self) -> Result<u64, Damaged> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Damaged)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damaged)
    }

    fn take(&mut self, length: u64) -> Result<&'b [u8], Damaged> {
        let length = usize::try_from(length).map_err(|_| Damaged)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'b>), Damaged> {
        let key = self.varint()?;
        let number = |bytes: &[u8]| Value::Number(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)));
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => number(self.take(8)?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => number(self.take(4)?),
            _ => return Err(Damaged),
        };
        Ok((key >> 3, value))
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = Result<(u64, Value<'b>), Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The last value of a field that is a number, as readers with a schema take it.
pub(super) fn number(message: &[u8], field: u64) -> Result<Option<u64>, Damaged> {
    let mut found = None;
    for entry in Fields::new(message) {
        if let (number, Value::Number(value)) = entry?
            && number == field
        {
            found = Some(value);
        }
    }
    Ok(found)
}

/// All values of a field that is a string or a message.
pub(super) fn all(message: &[u8], field: u64) -> Result<Vec<&[u8]>, Damaged> {
    let mut found = Vec::new();
    for entry in Fields::new(message) {
        if let (number, Value::Bytes(value)) = entry?
            && number == field
        {
            found.push(value);
        }
    }
    Ok(found)
}

/// The one value of a field. Readers with a schema merge messages that are there twice: nobody writes such.
pub(super) fn one(message: &[u8], field: u64) -> Result<Option<&[u8]>, Damaged> {
    match all(message, field)?[..] {
        [] => Ok(None),
        [value] => Ok(Some(value)),
        _ => Err(Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_number() {
        // 1: 150, 2: "testing", 3: {1: 1}, 4: fixed32 7
        let message = [&[0x08, 0x96, 0x01, 0x12, 0x07][..], b"testing", &[0x1a, 0x02, 0x08, 0x01, 0x25, 7, 0, 0, 0]].concat();
        assert_eq!(number(&message, 1), Ok(Some(150)));
        assert_eq!(one(&message, 2), Ok(Some(&b"testing"[..])));
        assert_eq!(number(one(&message, 3).unwrap().unwrap(), 1), Ok(Some(1)));
        assert_eq!((number(&message, 4), number(&message, 9)), (Ok(Some(7)), Ok(None)));
        assert_eq!(one(&[&message[..], &message].concat(), 2), Err(Damaged));
    }

    #[test]
    fn damage_is_an_error() {
        for bad in
            [&[0x08][..], &[0x12, 0x05, 1], &[0x0b], &[0xff; 11], &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]]
        {
            assert_eq!(all(bad, 1), Err(Damaged), "{bad:?}");
        }
    }
}
