//! The parity vector: features of two fixed pictures, as we compute them, for
//! whoever loads the weights elsewhere to compare with.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::safetensors_file;
use super::source::Source;
use super::weights::Weights;
use crate::bad_input;
use crate::checkpoint::{Dtype, HostTensor};
use crate::config::{ComputeDtype, RunConfig};
use crate::graph::Shape;
use crate::pjrt::{Arg, Client, CompileCache, CompileOptions, Program};
use crate::programs::features::{self, Form};

pub const PARITY_FILE: &str = "parity.safetensors";

/// Pictures of a parity vector.
pub const PICTURES: usize = 2;

/// |found - stored| / |stored| at most.
pub const TOLERANCE: f64 = 1e-5;

/// Bytes of pictures u8 [2, side, side, 3], row-major: byte k, from 0, is the
/// highest byte of (k + 1) * 2654435761 modulo 2^32. Any tool can draw them.
pub fn pictures(side: usize) -> Vec<u8> {
    let bytes = PICTURES * side * side * 3;
    let byte = |k: usize| ((k as u32).wrapping_add(1).wrapping_mul(2_654_435_761) >> 24) as u8;
    (0..bytes).map(byte).collect()
}

/// The same normalised, f32 [2, 3, side, side]: what other tools' models take.
fn normalised(config: &RunConfig, pictures: &[u8]) -> Vec<f32> {
    let side = config.model.image_size;
    let (mean, std) = (config.augment.mean, config.augment.std);
    let mut all = Vec::with_capacity(pictures.len());
    for picture in pictures.chunks_exact(side * side * 3) {
        for channel in 0..3 {
            let (mean, std) = (mean[channel], std[channel]);
            let channel = picture.iter().skip(channel).step_by(3);
            all.extend(channel.map(|x| ((f64::from(*x) / 255.0 - mean) / std) as f32));
        }
    }
    all
}

/// Features of pictures u8 [2, S, S, 3], f32 [2, dim], by our own program in
/// f32 on the client's first device.
///
/// # Errors
/// The compiler's and the device's.
pub fn features(
    client: &Arc<Client>,
    cache: Option<&CompileCache>,
    weights: &Weights,
    pictures: &[u8],
) -> Result<Vec<f32>> {
    let mut config = weights.config.clone();
    config.mesh.data = 1;
    config.model.compute_dtype = ComputeDtype::F32;
    let program = features::build(&config, PICTURES, Form::Plain)?;
    let arguments = program.graph.inputs.iter().map(|input| {
        let name = input.name.strip_prefix("base_encoder.");
        match name {
            Some(name) => anyhow::Ok((input.value.shape, &weights.get(name)?.data[..])),
            None => Ok((input.value.shape, pictures)),
        }
    });
    let arguments: Vec<(Shape, &[u8])> = arguments.collect::<Result<_>>()?;
    run(client, cache, &program.text(), &arguments)
}

/// The first result, f32, of a program on one device.
pub fn run(
    client: &Arc<Client>,
    cache: Option<&CompileCache>,
    text: &str,
    arguments: &[(Shape, &[u8])],
) -> Result<Vec<f32>> {
    let (executable, _) =
        client.compile_cached(&Program { text }, &CompileOptions::default(), cache)?;
    let device = client
        .devices()
        .first()
        .context("a client without devices")?;
    let put = |(shape, bytes): &(Shape, &[u8])| {
        let buffer = client.buffer_from_host(bytes, shape.dtype, shape.dims(), device)?;
        anyhow::Ok(Arg::Donate(buffer))
    };
    let arguments = arguments.iter().map(put).collect::<Result<Vec<_>>>()?;
    let outputs = executable.execute(vec![arguments])?;
    let result = outputs.buffers.iter().flatten().next();
    let bytes = result.context("the program gave no result")?.to_host()?;
    let (floats, _) = bytes.as_chunks::<4>();
    Ok(floats.iter().map(|x| f32::from_le_bytes(*x)).collect())
}

/// Writes a folder's parity vector.
pub fn write(folder: &Path, weights: &Weights, output: &[f32]) -> Result<()> {
    let config = &weights.config;
    let side = config.model.image_size;
    let pictures = pictures(side);
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensor = |name: &str, dtype, shape: &[usize], data| HostTensor {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        data,
    };
    let input = normalised(config, &pictures);
    let tensors = [
        tensor(
            "input",
            Dtype::F32,
            &[PICTURES, 3, side, side],
            bytes(&input),
        ),
        tensor(
            "output",
            Dtype::F32,
            &[PICTURES, output.len() / PICTURES],
            bytes(output),
        ),
        tensor("pictures", Dtype::U8, &[PICTURES, side, side, 3], pictures),
    ];
    safetensors_file::write(&folder.join(PARITY_FILE), &tensors, &[])
}

/// The stored features, f32 [2, dim], as one row after the other.
///
/// # Errors
/// [`bad_input!`] for a folder without a parity vector.
pub fn stored(folder: &Path) -> Result<Vec<f32>> {
    let path = folder.join(PARITY_FILE);
    let mut source = Source::open(&path)?;
    let index = source
        .entries
        .iter()
        .position(|entry| entry.name == "output");
    let index = index.ok_or_else(|| bad_input!("{} has no tensor output", path.display()))?;
    let bytes = source.read_f32(index)?;
    let (floats, _) = bytes.as_chunks::<4>();
    Ok(floats.iter().map(|x| f32::from_le_bytes(*x)).collect())
}

/// |found - expected| / |expected|, over all elements; infinite for another
/// length, and where something is not a number.
pub fn distance(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() || expected.is_empty() {
        return f64::INFINITY;
    }
    let square = |x: f64| x * x;
    let pairs = found.iter().zip(expected);
    let off: f64 = pairs
        .map(|(x, y)| square(f64::from(*x) - f64::from(*y)))
        .sum();
    let all: f64 = expected.iter().map(|y| square(f64::from(*y))).sum();
    let distance = (off / all.max(f64::MIN_POSITIVE)).sqrt();
    match distance.is_nan() {
        true => f64::INFINITY,
        false => distance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pictures_begin_as_the_formula_says() {
        // 2654435761 = 0x9e3779b1; twice and thrice it, modulo 2^32, by hand.
        assert_eq!(pictures(1)[..3], [0x9e, 0x3c, 0xda]);
        assert_eq!(pictures(4).len(), 2 * 4 * 4 * 3);
    }

    #[test]
    fn what_is_no_number_is_far_off() {
        assert_eq!(distance(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(distance(&[0.0, 0.0], &[3.0, 4.0]), 1.0);
        assert_eq!(distance(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(distance(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    }
}
