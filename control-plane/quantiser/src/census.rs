//! Counts the messages of a file before any of them is decoded: each takes memory of its own, and an empty one only two
//! bytes of the file.

/// Most fields of one file.
pub(crate) const FIELDS_MAX: usize = 1 << 20;

/// A message whose parts are decoded one by one.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Value,
    Type,
    TensorType,
    Shape,
    /// Its parts are no messages.
    Leaf,
}

impl Message {
    /// The message in a field of this number, if it is one that is decoded.
    fn part(self, field: u64) -> Option<Self> {
        match (self, field) {
            (Self::Model, 7) => Some(Self::Graph),
            (Self::Graph, 1) => Some(Self::Node),
            (Self::Graph, 11..=13) => Some(Self::Value),
            (Self::Node, 5) => Some(Self::Attribute),
            (Self::Value, 2) => Some(Self::Type),
            (Self::Type, 1) => Some(Self::TensorType),
            (Self::TensorType, 2) => Some(Self::Shape),
            (Self::Model, 8) | (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Shape, 1) => {
                Some(Self::Leaf)
            }
            (
                Self::Model
                | Self::Graph
                | Self::Node
                | Self::Attribute
                | Self::Value
                | Self::Type
                | Self::TensorType
                | Self::Shape
                | Self::Leaf,
                _,
            ) => None,
        }
    }
}

/// Refuses bytes with more than [`FIELDS_MAX`] fields, or that are no protocol buffer at all.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut left = FIELDS_MAX;
    count(bytes, Message::Model, &mut left)
}

fn count(mut bytes: &[u8], message: Message, left: &mut usize) -> Result<(), String> {
    const BROKEN: &str = "its bytes break off or are none of a protocol buffer";
    while !bytes.is_empty() {
        *left = left.checked_sub(1).ok_or_else(|| format!("it has more than {FIELDS_MAX} parts"))?;
        let key = varint(&mut bytes).ok_or(BROKEN)?;
        let (field, wire) = (key >> 3, key & 7);
        match wire {
            0 => {
                varint(&mut bytes).ok_or(BROKEN)?;
            }
            1 => bytes = bytes.get(8..).ok_or(BROKEN)?,
            2 => {
                let length = varint(&mut bytes).and_then(|length| usize::try_from(length).ok());
                let length = length.filter(|length| *length <= bytes.len()).ok_or(BROKEN)?;
                let (part, rest) = bytes.split_at(length);
                if let Some(inner) = message.part(field) {
                    count(part, inner, left)?;
                }
                bytes = rest;
            }
            5 => bytes = bytes.get(4..).ok_or(BROKEN)?,
            _ => return Err(BROKEN.to_owned()),
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_messages_by_the_million_are_refused_before_they_are_decoded() {
        let graph = [0x0a, 0x00].repeat(FIELDS_MAX);
        let mut model = vec![0x3a];
        prost::encoding::encode_varint(graph.len() as u64, &mut model);
        model.extend(graph);
        assert_eq!(check(&model).unwrap_err(), format!("it has more than {FIELDS_MAX} parts"));
        assert!(check(&model[..model.len() / 2]).is_err());
    }

    #[test]
    fn what_is_cut_or_no_protocol_buffer_is_refused() {
        assert!(check(&[0x08, 0x08]).is_ok());
        for bytes in [&[0x08][..], &[0x0a, 0x05, 1], &[0x0b], &[0xff; 12]] {
            assert!(check(bytes).is_err(), "{bytes:?}");
        }
    }
}
