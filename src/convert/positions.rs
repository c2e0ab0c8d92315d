//! Position embeddings for pictures of another size.

use crate::checkpoint::HostTensor;

/// Of the cubic kernel, as PyTorch's bicubic interpolation has it.
const A: f32 = -0.75;

/// Position embeddings [1, n + s^2, dim] of a square picture for one of
/// `tokens` tokens, of which as many lie before the patches: the grid is
/// interpolated by cubics, corners not aligned and the border repeated, as DeiT
/// does it before fine-tuning. None where they are no such embeddings.
pub fn resample(tensor: &HostTensor, tokens: usize) -> Option<HostTensor> {
    let [1, old_tokens, dim] = *tensor.shape else {
        return None;
    };
    // At most one token of a class.
    let (before, old) = grid(old_tokens)?;
    let (same_before, new) = grid(tokens)?;
    if before != same_before || tensor.data.len() != 4 * old_tokens * dim {
        return None;
    }
    let values: Vec<f32> = tensor
        .data
        .as_chunks()
        .0
        .iter()
        .copied()
        .map(f32::from_le_bytes)
        .collect();
    let (kept, patches) = values.split_at(before * dim);
    // Along rows, then along columns.
    let wide = along(patches, [old, old, dim], new);
    let transposed = transpose(&wide, [old, new, dim]);
    let square = along(&transposed, [new, old, dim], new);
    let patches = transpose(&square, [new, new, dim]);
    let all = kept.iter().chain(&patches);
    Some(HostTensor {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: vec![1, tokens, dim],
        data: all.copied().flat_map(f32::to_le_bytes).collect(),
    })
}

/// Tokens before the patches, and patches on a side.
fn grid(tokens: usize) -> Option<(usize, usize)> {
    [0, 1].into_iter().find_map(|before| {
        let patches = tokens.checked_sub(before)?;
        let side = patches.isqrt();
        (side > 0 && side * side == patches).then_some((before, side))
    })
}

/// [n, old, dim] to [n, new, dim].
fn along(values: &[f32], [rows, old, dim]: [usize; 3], new: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * new * dim);
    let scale = old as f32 / new as f32;
    for row in values.chunks_exact(old * dim) {
        for at in 0..new {
            let place = (at as f32 + 0.5) * scale - 0.5;
            let (first, t) = (place.floor(), place - place.floor());
            let weights = cubic(t);
            let taps = [-1, 0, 1, 2]
                .map(|offset: i64| (first as i64 + offset).clamp(0, old as i64 - 1) as usize * dim);
            out.extend((0..dim).map(|d| {
                let tap = |i: usize| weights[i] * row[taps[i] + d];
                tap(0) + tap(1) + tap(2) + tap(3)
            }));
        }
    }
    out
}

/// Weights of the four neighbours of a place `t` after the second.
fn cubic(t: f32) -> [f32; 4] {
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// [n, m, dim] to [m, n, dim].
fn transpose(values: &[f32], [n, m, dim]: [usize; 3]) -> Vec<f32> {
    let cell = |i: usize, j: usize| &values[(i * m + j) * dim..][..dim];
    (0..m)
        .flat_map(|j| (0..n).flat_map(move |i| cell(i, j)))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Dtype;

    fn tensor(shape: &[usize], values: &[f32]) -> HostTensor {
        HostTensor {
            name: "pos_embed".into(),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            data: values.iter().copied().flat_map(f32::to_le_bytes).collect(),
        }
    }

    fn values(tensor: &HostTensor) -> Vec<f32> {
        tensor
            .data
            .as_chunks()
            .0
            .iter()
            .copied()
            .map(f32::from_le_bytes)
            .collect()
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let old: Vec<f32> = (0..20).map(|i| (i * i % 7) as f32).collect();
        let found = resample(&tensor(&[1, 10, 2], &old), 10).unwrap();
        assert_eq!(values(&found), old);
    }

    #[test]
    fn other_shapes_are_none_of_these() {
        let old = [0.0; 12];
        assert!(resample(&tensor(&[1, 12, 1], &old), 10).is_none());
        assert!(resample(&tensor(&[12, 1], &old), 10).is_none());
        // With a class token, and without.
        assert!(resample(&tensor(&[1, 9, 1], &old[..9]), 10).is_none());
    }
}
