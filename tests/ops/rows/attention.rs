//! Rows of attention as one op.

use xla_moco::graph::DType;
use xla_moco::graph::ops::{Attention, AttentionGrad, AttentionKernel};

use crate::array::{Array, indices};
use crate::row::{Gradient, Row, f32s, float};

/// Batch, queries, keys, heads, width.
const B: usize = 2;
const Q: usize = 3;
const T: usize = 4;
const H: usize = 2;
const E: usize = 2;

pub fn rows() -> Vec<Row> {
    let (q, k) = (
        float(&[B, Q, H, E], -1.5, 1.5),
        float(&[B, T, H, E], -1.5, 1.5),
    );
    let v = k.clone();
    let (queries, keys) = (f32s(&[B, Q, H, E]), f32s(&[B, T, H, E]));
    let gradient = AttentionGrad {
        kernel: AttentionKernel::Equations,
    };
    let logarithms = float(&[B, H, Q], 0.5, 2.5);
    vec![
        Row::new(
            "Attention",
            "attention",
            vec![q.clone(), k.clone(), v.clone()],
            |b, args| {
                let kernel = AttentionKernel::Equations;
                Ok(vec![b.push(Attention { kernel }, args)?[0]])
            },
            |x| vec![attention(&x[0], &x[1], &x[2])],
        )
        .refuses(&[queries, keys, queries], "keys and values differ")
        .refuses(
            &[f32s(&[B, Q, H, 3]), keys, keys],
            "queries and keys differ in batch, heads, width",
        )
        .refuses(&[f32s(&[2]), keys, keys], "[B, T, heads, width]"),
        // Whatever the logarithms are.
        Row::new(
            "AttentionGrad",
            "gradient of attention",
            vec![q.clone(), k, v, logarithms, q.clone(), q],
            move |b, args| {
                let mut args = args.to_vec();
                // Sums are f32 at least.
                if args[3].dtype() == DType::BF16 {
                    args[3] = b.convert(args[3], DType::F32)?;
                }
                b.push(gradient.clone(), &args)
            },
            |x| gradients(x).to_vec(),
        )
        .gradient(Gradient::Refused("it is one itself"))
        .refuses(
            &[queries, keys, keys, f32s(&[B, Q, H]), queries, queries],
            "not those of the first three",
        ),
    ]
}

/// q k / sqrt(E) of sample b, head h.
fn score(q: &Array, k: &Array, [b, h, i, j]: [usize; 4]) -> f64 {
    let products = (0..E).map(|e| q.at(&[b, i, h, e]) * k.at(&[b, j, h, e]));
    products.sum::<f64>() / (E as f64).sqrt()
}

fn attention(q: &Array, k: &Array, v: &Array) -> Array {
    Array::from_fn(&[B, Q, H, E], |at| {
        let [b, i, h, e] = [at[0], at[1], at[2], at[3]];
        let weight = |j: usize| score(q, k, [b, h, i, j]).exp();
        let total: f64 = (0..T).map(weight).sum();
        (0..T)
            .map(|j| weight(j) / total * v.at(&[b, j, h, e]))
            .sum()
    })
}

/// With weights exp(score - logarithm): dv = w ct, and of the scores
/// w (ct v - sum(ct y)).
fn gradients(x: &[Array]) -> [Array; 3] {
    let (q, k, v, logarithms, ct, y) = (&x[0], &x[1], &x[2], &x[3], &x[4], &x[5]);
    let mut all = [
        Array::full(&[B, Q, H, E], 0.0),
        Array::full(&[B, T, H, E], 0.0),
        Array::full(&[B, T, H, E], 0.0),
    ];
    for at in indices(&[B, H, Q, T]) {
        let [b, h, i, j] = [at[0], at[1], at[2], at[3]];
        let weight = (score(q, k, [b, h, i, j]) - logarithms.at(&[b, h, i])).exp();
        let along = |a: &Array, c: &Array, [m, n]: [usize; 2]| -> f64 {
            let products = (0..E).map(|e| a.at(&[b, m, h, e]) * c.at(&[b, n, h, e]));
            products.sum()
        };
        let d_score = weight * (along(ct, v, [i, j]) - along(ct, y, [i, i]));
        let d_score = d_score / (E as f64).sqrt();
        for e in 0..E {
            *all[0].at_mut(&[b, i, h, e]) += d_score * k.at(&[b, j, h, e]);
            *all[1].at_mut(&[b, j, h, e]) += d_score * q.at(&[b, i, h, e]);
            *all[2].at_mut(&[b, j, h, e]) += weight * ct.at(&[b, i, h, e]);
        }
    }
    all
}
