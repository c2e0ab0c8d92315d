//! What training with labels does to normalised pictures: random erasing, then
//! mixup or CutMix with the picture opposite in the batch.

use crate::graph::ops::Comparison;
use crate::graph::philox::{philox, uniform};
use crate::graph::{Builder, DType, Result, Shape, Value};

/// Elements of the argument `mix`: what of a picture stays outside the
/// rectangle; the rectangle's top, bottom, left, right in pixels, in which the
/// picture is the other one; the share of its own label.
pub const MIX: usize = 6;

/// The share of the own label in `mix` (f32 [MIX]).
pub fn share(b: &Builder, mix: Value) -> Result<Value> {
    element(b, mix, MIX - 1)
}

fn element(b: &Builder, mix: Value, at: usize) -> Result<Value> {
    b.reshape(b.slice_axis(mix, 0, at, at + 1)?, &[])
}

/// Pictures [B, 3, S, S], each mixed with the one opposite in the batch as `mix`
/// says: `w x + (1 - w) reverse(x)`, with w 0 inside the rectangle.
///
/// # Errors
/// If the shapes are others.
pub fn mix(b: &Builder, x: Value, mix: Value) -> Result<Value> {
    let _scope = b.scope("mix");
    let inside = inside(b, x, |i| {
        let edge = element(b, mix, 1 + i)?;
        b.broadcast_to(edge, &[1, 1, x.dim(2), x.dim(3)])
    })?;
    let blend = b.broadcast_to(element(b, mix, 0)?, inside.dims())?;
    let own = b.select(inside, b.full_like(blend, 0.0)?, blend)?;
    let rest = b.sub(b.full_like(own, 1.0)?, own)?;
    let all = |weight| b.broadcast_to(weight, x.dims());
    let other = b.reverse(x, &[0])?;
    b.add(b.mul(all(own)?, x)?, b.mul(all(rest)?, other)?)
}

/// Pictures [B, 3, S, S] with a rectangle of each replaced by `noise` of the
/// same shape. `boxes` are f32 [B, 4]: top, bottom, left, right in pixels; an
/// empty one leaves the picture as it is (Zhong et al. 2020).
///
/// # Errors
/// If the shapes are others.
pub fn erase(b: &Builder, x: Value, boxes: Value, noise: Value) -> Result<Value> {
    let _scope = b.scope("erase");
    let inside = inside(b, x, |i| {
        let edge = b.reshape(b.slice_axis(boxes, 1, i, i + 1)?, &[x.dim(0)])?;
        b.broadcast_in_dim(edge, &[x.dim(0), 1, x.dim(2), x.dim(3)], &[0])
    })?;
    let inside = b.broadcast_to(inside, x.dims())?;
    b.select(inside, noise, x)
}

/// Which pixels are in a rectangle, by the values of its edges: top, bottom,
/// left, right, which give the result its shape.
fn inside(b: &Builder, x: Value, edge: impl Fn(usize) -> Result<Value>) -> Result<Value> {
    let dims = [1, 1, x.dim(2), x.dim(3)];
    let mut all: Option<Value> = None;
    for axis in [2, 3] {
        let at = b.iota(Shape::new(DType::F32, &dims), axis)?;
        let [low, high] = [edge(2 * (axis - 2))?, edge(2 * (axis - 2) + 1)?];
        let at = b.broadcast_to(at, low.dims())?;
        let within = b.and(
            b.compare(Comparison::Ge, at, low)?,
            b.compare(Comparison::Lt, at, high)?,
        )?;
        all = Some(match all {
            Some(all) => b.and(all, within)?,
            None => within,
        });
    }
    Ok(all.expect("two axes"))
}

/// Standard normal values of the shape of `like` (f32 [B, ...]), a pure function
/// of seed, step (i32 []) and place.
///
/// # Errors
/// If a picture has 2^32 values or more.
pub fn normal(b: &Builder, like: Value, seed: u64, step: Value) -> Result<Value> {
    let _scope = b.scope("noise");
    let shape = like.shape.with_dtype(DType::U32);
    let rows = b.iota(shape, 0)?;
    let each: usize = like.dims()[1..].iter().product();
    let place = b.iota(Shape::new(DType::U32, &[each]), 0)?;
    let place = b.reshape(place, &[&[1], &like.dims()[1..]].concat())?;
    let place = b.broadcast_to(place, like.dims())?;
    let step = b.broadcast_to(b.convert(step, DType::U32)?, like.dims())?;
    let purpose = b.full_like(place, f64::from(crate::rng::Purpose::Noise as u32))?;
    let key = [seed as u32, (seed >> 32) as u32];
    let key = [
        b.full_like(place, f64::from(key[0]))?,
        b.full_like(place, f64::from(key[1]))?,
    ];
    let [first, second, _, _] = philox(b, [place, rows, step, purpose], key)?;
    // Box and Muller; 1 - u is in (0, 1].
    let first = uniform(b, first)?;
    let radius = b.log(b.sub(b.full_like(first, 1.0)?, first)?)?;
    let radius = b.sqrt(b.scale(radius, -2.0)?)?;
    let angle = b.scale(uniform(b, second)?, std::f64::consts::TAU)?;
    b.mul(radius, b.cosine(angle)?)
}
