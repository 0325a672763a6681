//! The field of 256 elements that Q is computed in. Adding is XOR, for lack of carries.

/// What is left of x^8: the polynomial 0x11d without its highest bit.
const POLYNOMIAL: u8 = 0x1d;

/// Twice a number.
fn double(a: u8) -> u8 {
    let carry = if a & 0x80 == 0 { 0 } else { POLYNOMIAL };
    (a << 1) ^ carry
}

/// The product of two numbers.
pub fn product(a: u8, b: u8) -> u8 {
    let (mut sum, mut power) = (0, a);
    for bit in 0..8 {
        if b >> bit & 1 == 1 {
            sum ^= power;
        }
        power = double(power);
    }
    sum
}

/// Two to the power of `n`.
pub fn power(n: usize) -> u8 {
    (0..n % 255).fold(1, |power, _| double(power))
}

/// The number whose product with `a` is 1; 0 of 0.
pub fn inverse(a: u8) -> u8 {
    // a^255 is 1.
    (0..254).fold(1, |power, _| product(power, a))
}

/// Adds a buffer to another.
pub fn add(to: &mut [u8], what: &[u8]) {
    for (to, what) in to.iter_mut().zip(what) {
        *to ^= what;
    }
}

/// Adds a buffer times `factor` to another.
pub fn add_times(to: &mut [u8], what: &[u8], factor: u8) {
    let table = table(factor);
    for (to, what) in to.iter_mut().zip(what) {
        *to ^= table.get(usize::from(*what)).copied().unwrap_or(0);
    }
}

/// Multiplies a buffer by `factor`.
pub fn times(buffer: &mut [u8], factor: u8) {
    let table = table(factor);
    for byte in buffer {
        *byte = table.get(usize::from(*byte)).copied().unwrap_or(0);
    }
}

fn table(factor: u8) -> [u8; 256] {
    let mut table = [0; 256];
    for (entry, number) in table.iter_mut().zip(0..=u8::MAX) {
        *entry = product(number, factor);
    }
    table
}
