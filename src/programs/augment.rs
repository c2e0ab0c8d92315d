//! The augmentation as part of the train step: the host cuts pictures out
//! and draws a row of numbers for each (`data::augment`), the device does the
//! rest.
//!
//! Pictures are f32 in 0..1 and planar, [B, 3, S, S], so that the two minor
//! axes fill a TPU's tiles. Every operation is torchvision's on float tensors.
//! What the configuration can never draw is not in the graph.
//!
//! Optimization barriers stand where a picture is read many times over (hue,
//! the taps of the blur): without them XLA fuses the producer into each of
//! the reads and computes it as often.

use crate::config::Augment;
use crate::data::augment::{BLEND, COLUMNS, FLIP, GRAY, HUE, SIGMA, SLOTS_EACH_SIDE, SOLARIZE};
use crate::graph::ops::Comparison;
use crate::graph::{Builder, DType, GraphError, Result, Shape, Value};

/// Weights of red, green and blue in the grey of a pixel, as Pillow and
/// torchvision have them (ITU-R BT.601).
const LUMA: [f64; 3] = [0.2989, 0.587, 0.114];

/// Solarizing inverts what is at least this.
const SOLARIZE_FROM: f64 = 128.0 / 255.0;

/// A standard deviation of the blur that stands for 0: so small that the
/// weights are exactly 1, 0, 0, ...
const NO_BLUR: f64 = 1e-3;

/// Augments one view of each picture.
///
/// `crops` are u8 [B, S, S, 3] as the host cut them out, `rows` f32
/// [B, COLUMNS] as [`crate::data::augment::draw`] gives them for `config` and
/// `view` (0 or 1). The result is f32 [B, 3, S, S], normalised.
///
/// # Errors
/// If the shapes are others, or S is under 2 where there is a blur.
///
/// # Panics
/// If `view` is neither 0 nor 1.
pub fn augment(
    b: &Builder,
    crops: Value,
    rows: Value,
    config: &Augment,
    view: usize,
) -> Result<Value> {
    let _scope = b.scope("augment");
    let (batch, side) = picture_dims(b, crops)?;
    if rows.shape != Shape::new(DType::F32, &[batch, COLUMNS]) {
        let reason = format!("a row of {COLUMNS} f32 values is needed for each picture");
        return Err(refusal(b, &[crops, rows], reason));
    }
    let column = |at: usize| {
        let values = b.slice_axis(rows, 1, at, at + 1)?;
        b.reshape(values, &[batch, 1, 1, 1])
    };
    let mut crops = crops;
    if config.flip_p > 0.0 {
        // Mirroring commutes with all that follows, and is cheapest on bytes.
        let _scope = b.scope("flip");
        let flip = is_set(b, column(FLIP)?)?;
        crops = b.select(flip, b.reverse(crops, &[2])?, crops)?;
    }
    let mut x = planar(b, crops)?;
    if config.jitter_p > 0.0 {
        x = jitter(b, x, &column, config)?;
    }
    if config.gray_p > 0.0 {
        let _scope = b.scope("grayscale");
        let gray = column(GRAY)?;
        x = blend(b, x, one_minus(b, gray)?, Some(gray), None)?;
    }
    if config.blur_p[view] > 0.0 {
        x = blur(b, x, column(SIGMA)?, blur_kernel(side))?;
    }
    if config.solarize_p[view] > 0.0 {
        let _scope = b.scope("solarize");
        let bright = b.compare(Comparison::Ge, x, b.full_like(x, SOLARIZE_FROM)?)?;
        let bright = b.and(bright, is_set(b, column(SOLARIZE)?)?)?;
        x = b.select(bright, one_minus(b, x)?, x)?;
    }
    standardise(b, x, config.mean, config.std)
}

/// u8 [B, S, S, 3] to f32 [B, 3, S, S] in 0..1, less `mean`, divided by
/// `std`, and nothing else: what evaluation sees.
///
/// # Errors
/// If the shape is another.
pub fn normalise(b: &Builder, pictures: Value, mean: [f64; 3], std: [f64; 3]) -> Result<Value> {
    let _scope = b.scope("augment");
    picture_dims(b, pictures)?;
    standardise(b, planar(b, pictures)?, mean, std)
}

/// The size of the blur's kernel for a side of so many pixels: about a tenth,
/// made odd, so 23 at 224.
pub fn blur_kernel(side: usize) -> usize {
    (side / 10) | 1
}

/// Gaussian blur of pictures [B, 3, S, S], the border mirrored without its
/// outermost pixels repeated. `sigma` [B, 1, 1, 1] is in pixels, 0 leaves the
/// picture as it is; `kernel` is odd, at most 2 S - 1.
///
/// One pass along each axis, a sum of shifted pictures. On the CPU it takes
/// about the time of products with band matrices and a small part of that of a
/// depthwise convolution; unlike both it is f32 also on chips that multiply
/// matrices in fewer bits.
pub fn blur(b: &Builder, x: Value, sigma: Value, kernel: usize) -> Result<Value> {
    let _scope = b.scope("blur");
    let radius = kernel / 2;
    let weights = gaussian(b, sigma, radius)?;
    let weight = |tap: usize| b.slice_axis(weights, 1, tap, tap + 1);
    let mut x = x;
    for axis in [2, 3] {
        let side = x.dim(axis);
        let source = reflect(b, x, axis, radius)?;
        let shifted = |start: usize| b.slice_axis(source, axis, start, start + side);
        x = b.mul(weight(0)?, shifted(radius)?)?;
        for tap in 1..=radius {
            let pair = b.add(shifted(radius - tap)?, shifted(radius + tap)?)?;
            x = b.add(x, b.mul(weight(tap)?, pair)?)?;
        }
    }
    Ok(x)
}

/// The weights of offsets 0..=radius, [B, radius + 1, 1, 1]; with both signs
/// of each they sum to 1.
fn gaussian(b: &Builder, sigma: Value, radius: usize) -> Result<Value> {
    let sigma = b.max(sigma, b.full_like(sigma, NO_BLUR)?)?;
    let offset = b.iota(Shape::new(DType::F32, &[1, radius + 1, 1, 1]), 1)?;
    let z = b.div(offset, sigma)?;
    let weights = b.exp(b.scale(b.mul(z, z)?, -0.5)?)?;
    // The weight of 0 is exp(0) = 1, and is there once, the others twice.
    let total = b.shift(b.scale(b.sum(weights, &[1])?, 2.0)?, -1.0)?;
    b.div(weights, b.reshape(total, sigma.dims())?)
}

/// `x` with `radius` mirrored rows on both ends of an axis.
fn reflect(b: &Builder, x: Value, axis: usize, radius: usize) -> Result<Value> {
    if radius == 0 {
        return Ok(x);
    }
    let side = x.dim(axis);
    if radius >= side {
        let reason = format!("a border of {radius} cannot be mirrored from {side} pixels");
        return Err(refusal(b, &[x], reason));
    }
    let x = settle(b, x)?;
    let before = b.reverse(b.slice_axis(x, axis, 1, radius + 1)?, &[axis])?;
    let after = b.slice_axis(x, axis, side - 1 - radius, side - 1)?;
    let after = b.reverse(after, &[axis])?;
    settle(b, b.concatenate(&[before, x, after], axis)?)
}

/// Colour jitter: blend slots, hue, blend slots.
fn jitter(
    b: &Builder,
    x: Value,
    column: &dyn Fn(usize) -> Result<Value>,
    config: &Augment,
) -> Result<Value> {
    let [brightness, contrast, saturation, hue] = config.jitter.map(|strength| strength > 0.0);
    let blends = |x: Value, first: usize| {
        let _scope = b.scope("jitter");
        if !(brightness || contrast || saturation) {
            return Ok(x);
        }
        (first..first + SLOTS_EACH_SIDE).try_fold(x, |x, slot| {
            let at = BLEND + 3 * slot;
            let w_gray = saturation.then(|| column(at + 1)).transpose()?;
            let w_mean = contrast.then(|| column(at + 2)).transpose()?;
            blend(b, x, column(at)?, w_gray, w_mean)
        })
    };
    let mut x = blends(x, 0)?;
    if hue {
        x = shift_hue(b, x, column(HUE)?)?;
    }
    blends(x, SLOTS_EACH_SIDE)
}

/// A blend slot, see `data::augment`: `factor` of the picture and the rest of
/// its grey and of the mean of that. Factor and weights are [B, 1, 1, 1].
fn blend(
    b: &Builder,
    x: Value,
    factor: Value,
    w_gray: Option<Value>,
    w_mean: Option<Value>,
) -> Result<Value> {
    let rest = one_minus(b, factor)?;
    let gray = gray(b, x)?;
    let mut y = b.mul(factor, x)?;
    if let Some(weight) = w_gray {
        y = b.add(y, b.mul(b.mul(rest, weight)?, gray)?)?;
    }
    if let Some(weight) = w_mean {
        let mean = b.reshape(b.mean(gray, &[1, 2, 3])?, weight.dims())?;
        y = b.add(y, b.mul(b.mul(rest, weight)?, mean)?)?;
    }
    b.clamp(0.0, y, 1.0)
}

/// Adds to the hue of each pixel, in turns: to HSV and back.
///
/// With the largest and the smallest of a pixel's colours, and h its hue in
/// sixths of a turn, a colour is the smallest plus the range times a trapezium
/// in h, which is red's around 0, green's around 2 and blue's around 4.
/// Saturation and value need not be computed, since the range is their
/// product. Continuous in the pixel, also where hue is not: at grey the range
/// is 0.
fn shift_hue(b: &Builder, x: Value, turns: Value) -> Result<Value> {
    let _scope = b.scope("hue");
    let x = settle(b, x)?;
    let [red, green, blue] = channels(b, x)?;
    let largest = b.max(b.max(red, green)?, blue)?;
    let smallest = b.min(b.min(red, green)?, blue)?;
    let range = b.sub(largest, smallest)?;
    let number = |x: f64| b.full_like(range, x);

    let is_red = b.compare(Comparison::Eq, largest, red)?;
    let is_green = b.compare(Comparison::Eq, largest, green)?;
    let by_largest = |if_red: Value, if_green: Value, if_blue: Value| {
        b.select(is_red, if_red, b.select(is_green, if_green, if_blue)?)
    };
    let beside = by_largest(b.sub(green, blue)?, b.sub(blue, red)?, b.sub(red, green)?)?;
    let start = by_largest(number(0.0)?, number(2.0)?, number(4.0)?)?;
    let is_gray = b.compare(Comparison::Eq, range, number(0.0)?)?;
    let divisor = b.select(is_gray, number(1.0)?, range)?;
    let hue = b.add(start, b.div(beside, divisor)?)?;

    let hue = b.add(hue, b.scale(turns, 6.0)?)?;
    let full_turns = b.floor(b.scale(hue, 1.0 / 6.0)?)?;
    let hue = b.sub(hue, b.scale(full_turns, 6.0)?)?;
    let from_middle = |middle: f64| b.abs(b.shift(hue, -middle)?);
    let shares = [
        // Red's lies across the seam at 0 and 6: what is far from 3.
        b.shift(from_middle(3.0)?, -1.0)?,
        b.shift(b.neg(from_middle(2.0)?)?, 2.0)?,
        b.shift(b.neg(from_middle(4.0)?)?, 2.0)?,
    ];
    let colours = shares
        .into_iter()
        .map(|share| b.add(smallest, b.mul(range, b.clamp(0.0, share, 1.0)?)?))
        .collect::<Result<Vec<_>>>()?;
    // Exactly the same picture where there is no shift, or rounding would
    // decide what is solarized of a pixel of 128.
    let shifted = b.select(is_set(b, turns)?, b.concatenate(&colours, 1)?, x)?;
    settle(b, shifted)
}

/// The grey of each pixel, [B, 1, S, S].
fn gray(b: &Builder, x: Value) -> Result<Value> {
    let [red, green, blue] = channels(b, x)?;
    let sum = b.add(b.scale(red, LUMA[0])?, b.scale(green, LUMA[1])?)?;
    b.add(sum, b.scale(blue, LUMA[2])?)
}

/// Red, green and blue, each [B, 1, S, S].
fn channels(b: &Builder, x: Value) -> Result<[Value; 3]> {
    let channel = |c: usize| b.slice_axis(x, 1, c, c + 1);
    Ok([channel(0)?, channel(1)?, channel(2)?])
}

/// u8 [B, S, S, 3] to f32 [B, 3, S, S] in 0..1.
fn planar(b: &Builder, pictures: Value) -> Result<Value> {
    let x = b.transpose(pictures, &[0, 3, 1, 2])?;
    b.scale(b.convert(x, DType::F32)?, 1.0 / 255.0)
}

fn standardise(b: &Builder, x: Value, mean: [f64; 3], std: [f64; 3]) -> Result<Value> {
    let _scope = b.scope("normalise");
    let table = |values: [f64; 3]| b.table(Shape::new(DType::F32, &[1, 3, 1, 1]), values.to_vec());
    b.div(b.sub(x, table(mean)?)?, table(std)?)
}

fn one_minus(b: &Builder, x: Value) -> Result<Value> {
    b.sub(b.full_like(x, 1.0)?, x)
}

/// Whether a column is not 0.
fn is_set(b: &Builder, column: Value) -> Result<Value> {
    b.compare(Comparison::Ne, column, b.full_like(column, 0.0)?)
}

/// `x` as an array in memory: XLA fuses nothing across.
fn settle(b: &Builder, x: Value) -> Result<Value> {
    Ok(b.optimization_barrier(&[x])?[0])
}

/// Number and side of pictures u8 [B, S, S, 3].
fn picture_dims(b: &Builder, pictures: Value) -> Result<(usize, usize)> {
    match *pictures.dims() {
        [batch, height, width, 3] if height == width && pictures.dtype() == DType::U8 => {
            Ok((batch, height))
        }
        _ => Err(refusal(b, &[pictures], "pictures are u8 [B, S, S, 3]")),
    }
}

fn refusal(b: &Builder, operands: &[Value], reason: impl Into<String>) -> GraphError {
    let shapes: Vec<String> = operands.iter().map(|v| v.shape.to_string()).collect();
    GraphError::Shape {
        op: "augmentation".into(),
        scope: b.scope_path(),
        operands: shapes.join(", "),
        reason: reason.into(),
    }
}
