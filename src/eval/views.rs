//! Augmented views as pictures again.

use anyhow::Result;

use crate::config::Augment;
use crate::data::Batch;
use crate::data::augment::COLUMNS;
use crate::graph::DType;
use crate::pjrt::{Arg, Client, CompileCache, CompileOptions, Program};
use crate::programs::views;

/// View `view` (0 or 1) of a batch's rows as the encoder is given it, made by the
/// device program on the client's first device, with the normalisation undone:
/// for each row `side` x `side` x 3 bytes.
///
/// # Errors
/// The compiler's and the device's.
pub fn pictures(
    client: &Client,
    config: &Augment,
    side: usize,
    batch: &Batch,
    view: usize,
    cache: Option<&CompileCache>,
) -> Result<Vec<Vec<u8>>> {
    let rows = batch.ids.len();
    let text = views::build(config, rows, side, view)?.text();
    let options = CompileOptions::default();
    let (executable, _) = client.compile_cached(&Program { text: &text }, &options, cache)?;
    let device = &client.devices()[0];
    let crops = &batch.views[view];
    let crops = client.buffer_from_host(crops, DType::U8, &[rows, side, side, 3], device)?;
    let params: Vec<u8> = batch.params[view]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let params = client.buffer_from_host(&params, DType::F32, &[rows, COLUMNS], device)?;
    let run = executable.execute(vec![vec![Arg::Borrow(&crops), Arg::Borrow(&params)]])?;
    let bytes = run.buffers[0][0].to_host()?;
    let (words, _) = bytes.as_chunks::<4>();
    let values: Vec<f32> = words.iter().map(|w| f32::from_le_bytes(*w)).collect();
    Ok(values
        .chunks_exact(3 * side * side)
        .map(|planes| interleaved(planes, config.mean, config.std))
        .collect())
}

/// Planes [3, S, S], normalised, to [S, S, 3] bytes.
fn interleaved(planes: &[f32], mean: [f64; 3], std: [f64; 3]) -> Vec<u8> {
    let area = planes.len() / 3;
    let byte = |at: usize| {
        let (channel, pixel) = (at % 3, at / 3);
        let value = f64::from(planes[channel * area + pixel]) * std[channel] + mean[channel];
        (value * 255.0).round().clamp(0.0, 255.0) as u8
    };
    (0..3 * area).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalised_planes_become_the_pixels_that_they_were() {
        let (mean, std) = ([0.5, 0.25, 0.0], [0.25, 0.5, 1.0]);
        let pixels = [[0u8, 128, 255], [255, 7, 1]];
        let normalised = |c: usize| {
            let of = move |pixel: &[u8; 3]| (f64::from(pixel[c]) / 255.0 - mean[c]) / std[c];
            pixels
                .iter()
                .map(of)
                .map(|x| x as f32)
                .collect::<Vec<f32>>()
        };
        let planes: Vec<f32> = (0..3).flat_map(normalised).collect();
        assert_eq!(interleaved(&planes, mean, std), pixels.concat());
        assert_eq!(interleaved(&[9.0, -9.0, 0.0], mean, std), [255, 0, 0]);
    }
}
