//! Numbers, read byte by byte.

use crate::quantity::Quantity;

/// A number so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    digits: Digits,
    /// `None` when it can't become a [`Quantity`] any more.
    whole: Option<u64>,
    negative: bool,
}

/// Where in a number the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digits {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Number {
    /// A number that begins with `byte`, if one can.
    pub(super) fn begin(byte: u8) -> Option<Self> {
        let (digits, whole) = match byte {
            b'-' => (Digits::Minus, 0),
            b'0' => (Digits::Zero, 0),
            b'1'..=b'9' => (Digits::Whole, byte - b'0'),
            _ => return None,
        };
        Some(Self { digits, whole: Some(whole.into()), negative: byte == b'-' })
    }

    /// The number with `byte` at its end; `None` when `byte` is not of it.
    fn with(self, byte: u8) -> Option<Self> {
        let digits = self.digits.next(byte)?;
        let whole = match digits {
            Digits::Zero | Digits::Whole => self.whole.and_then(|whole| {
                whole.checked_mul(10)?.checked_add(u64::from(byte.wrapping_sub(b'0')))
            }),
            Digits::Fraction => self.whole.filter(|_| byte == b'0'),
            Digits::E => None,
            Digits::Minus | Digits::Point | Digits::Sign | Digits::Exponent => self.whole,
        };
        Some(Self { digits, whole, ..self })
    }

    /// The number with all of its bytes that `bytes` begins with, and how many those are.
    pub(super) fn with_run(mut self, bytes: &[u8]) -> (Self, usize) {
        let mut run = 0;
        for &byte in bytes {
            let Some(longer) = self.with(byte) else { break };
            self = longer;
            run += 1;
        }
        (self, run)
    }

    /// Whether it is whole as it is, without another digit.
    pub(super) fn may_end(self) -> bool {
        matches!(self.digits, Digits::Zero | Digits::Whole | Digits::Fraction | Digits::Exponent)
    }

    /// Its value; `None` unless it is a whole number from 0 to 2⁵³ − 1 without an exponent.
    pub(super) fn quantity(self) -> Option<Quantity> {
        let whole = self.whole.filter(|whole| !self.negative || *whole == 0)?;
        Quantity::new(whole).ok()
    }
}

impl Digits {
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Self::Whole,
            (Self::Zero | Self::Whole, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Self::E,
            (Self::E, b'+' | b'-') => Self::Sign,
            (Self::E | Self::Sign | Self::Exponent, b'0'..=b'9') => Self::Exponent,
            _ => return None,
        })
    }
}
