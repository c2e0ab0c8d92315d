//! Pillow's operations on the values of 8-bit RGB pictures.

/// Each value by itself.
pub fn map(picture: &mut [u8], f: impl Fn(u8) -> u8) {
    for x in picture {
        *x = f(*x);
    }
}

/// `from + factor * (to - from)`, clamped and cut off, as `Image.blend`.
pub fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let from = f32::from(from);
    // A cast to u8 clamps, and cuts off what is after the point.
    (from + factor * (f32::from(to) - from)) as u8
}

/// Pillow's grey of a pixel (ITU-R BT.601 in 16 bits).
fn grey(pixel: &[u8]) -> u8 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16) as u8
}

/// Away from, or towards, its grey (`ImageEnhance.Color`).
pub fn saturate(picture: &mut [u8], factor: f32) {
    for pixel in picture.chunks_exact_mut(3) {
        let grey = grey(pixel);
        map(pixel, |x| blend(grey, x, factor));
    }
}

/// Away from, or towards, the mean grey (`ImageEnhance.Contrast`).
pub fn contrast(picture: &mut [u8], factor: f32) {
    let pixels = picture.chunks_exact(3);
    let count = pixels.len().max(1) as f64;
    let sum: u64 = pixels.map(|pixel| u64::from(grey(pixel))).sum();
    let mean = (sum as f64 / count + 0.5) as u8;
    map(picture, |x| blend(mean, x, factor));
}

/// Away from, or towards, a smoothed picture (`ImageEnhance.Sharpness`): the
/// mean of 3 x 3 pixels with the middle five times; the border is not smoothed.
pub fn sharpen(picture: &mut [u8], side: usize, factor: f32) {
    let old = picture.to_vec();
    let row = 3 * side;
    for y in 1..side.saturating_sub(1) {
        for at in 3..row - 3 {
            let at = y * row + at;
            let mut sum = 0.5;
            for line in [at + row, at, at - row] {
                for near in [line - 3, line, line + 3] {
                    let weight = if near == at { 5.0 } else { 1.0 };
                    sum += f32::from(old[near]) * (weight / 13.0f32);
                }
            }
            picture[at] = sum as u8;
        }
    }
    for (x, old) in picture.iter_mut().zip(old) {
        *x = blend(*x, old, factor);
    }
}

/// Each channel by a table made of its histogram.
fn by_histogram(picture: &mut [u8], table: impl Fn(&[u32; 256]) -> Option<[u8; 256]>) {
    for channel in 0..3 {
        let mut histogram = [0; 256];
        for pixel in picture.chunks_exact(3) {
            histogram[usize::from(pixel[channel])] += 1;
        }
        let Some(table) = table(&histogram) else {
            continue;
        };
        for pixel in picture.chunks_exact_mut(3) {
            pixel[channel] = table[usize::from(pixel[channel])];
        }
    }
}

/// Each channel stretched to 0..255 (`ImageOps.autocontrast`).
pub fn auto_contrast(picture: &mut [u8]) {
    by_histogram(picture, |histogram| {
        let low = histogram.iter().position(|n| *n > 0)?;
        let high = histogram.iter().rposition(|n| *n > 0)?;
        if high <= low {
            return None;
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        // The casts clamp, and cut off what is after the point.
        Some(std::array::from_fn(|x| (x as f64 * scale + offset) as u8))
    });
}

/// Each channel's values made equally frequent (`ImageOps.equalize`).
pub fn equalize(picture: &mut [u8]) {
    by_histogram(picture, |histogram| {
        let last = histogram.iter().rfind(|n| **n > 0)?;
        let step = (histogram.iter().sum::<u32>() - last) / 255;
        if step == 0 {
            return None;
        }
        let mut n = step / 2;
        Some(histogram.map(|count| {
            let value = (n / step).min(255) as u8;
            n += count;
            value
        }))
    });
}
