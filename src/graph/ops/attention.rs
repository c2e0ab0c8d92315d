//! Attention as one op, so that a kernel of the plugin's can do it.

use std::borrow::Cow;

use super::{Emission, Operation, Vjp, arity};
use crate::graph::builder::function;
use crate::graph::emit::quoted;
use crate::graph::{Builder, DType, Graph, Result, Shape, Value};

/// Who does an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionKernel {
    /// The ops of its equations, on any plugin. The matrix of scores is an array
    /// like any other.
    Equations,
    /// cuDNN's flash attention, by XLA's custom calls for CUDA, as JAX writes
    /// them (`jax.nn.dot_product_attention(implementation="cudnn")`). No matrix
    /// of scores reaches memory. For bf16.
    Cudnn,
}

/// softmax(q k^T / sqrt(E)) v of `q` [B, Q, H, E], `k` and `v` [B, T, H, E] for
/// each sample and head. Results: [B, Q, H, E], and the logarithms of the
/// softmaxes' sums, f32 [B, H, Q], which its derivative needs and which have
/// none of their own.
#[derive(Clone, Debug)]
pub struct Attention {
    pub kernel: AttentionKernel,
}

/// The cotangents of q, k and v of an [`Attention`]. Operands: these, the
/// logarithms, the result's cotangent and the result.
#[derive(Clone, Debug)]
pub struct AttentionGrad {
    pub kernel: AttentionKernel,
}

/// The type of sums and softmaxes.
fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// Checks q, k and v; gives the shape of the logarithms.
fn check([q, k, v]: [Shape; 3]) -> std::result::Result<Shape, String> {
    if q.rank() != 4 || k.rank() != 4 {
        return Err("expected [B, T, heads, width] of queries, keys and values".into());
    }
    if k != v {
        return Err("keys and values differ".into());
    }
    let same = [0, 2, 3]
        .iter()
        .all(|&axis| q.dims()[axis] == k.dims()[axis]);
    if !same || q.dtype != k.dtype {
        return Err("queries and keys differ in batch, heads, width or type".into());
    }
    if !q.dtype.is_float() || q.is_empty() || k.is_empty() {
        return Err("expected floats, and at least one".into());
    }
    let [batch, asking, heads, _] = [0, 1, 2, 3].map(|axis| q.dims()[axis]);
    Ok(Shape::new(wide(q.dtype), &[batch, heads, asking]))
}

/// Scores [B, H, Q, T], of products in the operands' type.
fn scores(b: &Builder, q: Value, k: Value) -> Result<Value> {
    let batch = (&[0, 2][..], &[0, 2][..]);
    let products = b.dot_general_as(wide(q.dtype()), q, k, batch, (&[3], &[3]))?;
    b.scale(products, factor(q.shape))
}

fn factor(q: Shape) -> f64 {
    1.0 / (q.dims()[3] as f64).sqrt()
}

/// [B, H, T, E] as [B, T, H, E].
fn heads_last(b: &Builder, x: Value) -> Result<Value> {
    b.transpose(x, &[0, 2, 1, 3])
}

fn equations(operands: &[Shape]) -> Result<Graph> {
    function(operands, |b, args| {
        let (q, k, v) = (args[0], args[1], args[2]);
        let scores = scores(b, q, k)?;
        let highest = b.reduce_max(scores, &[3])?;
        let e = b.exp(b.sub(scores, b.spread(highest, scores, &[3])?)?)?;
        let total = b.sum(e, &[3])?;
        let logarithms = b.add(highest, b.log(total)?)?;
        let weights = b.convert(b.div(e, b.spread(total, e, &[3])?)?, q.dtype())?;
        let y = b.dot_general(weights, v, (&[0, 1], &[0, 2]), (&[3], &[1]))?;
        Ok(vec![heads_last(b, y)?, logarithms])
    })
}

fn equations_of_gradient(operands: &[Shape]) -> Result<Graph> {
    function(operands, |b, args| {
        let [q, k, v, logarithms, ct, y] = [0, 1, 2, 3, 4, 5].map(|i| args[i]);
        let (dtype, wide) = (q.dtype(), wide(q.dtype()));
        let scores = scores(b, q, k)?;
        let weights = b.exp(b.sub(scores, b.spread(logarithms, scores, &[3])?)?)?;
        let (heads, of_values) = ((&[0, 1][..], &[0, 2][..]), (&[0, 2][..], &[0, 2][..]));
        let narrow = b.convert(weights, dtype)?;
        let dv = b.dot_general(narrow, ct, heads, (&[2], &[1]))?;
        let d_weights = b.dot_general_as(wide, ct, v, of_values, (&[3], &[3]))?;
        let weighted = b.mul(b.convert(ct, wide)?, b.convert(y, wide)?)?;
        let shared = b.transpose(b.sum(weighted, &[3])?, &[0, 2, 1])?;
        let d_scores = b.sub(d_weights, b.spread(shared, scores, &[3])?)?;
        let d_scores = b.scale(b.mul(weights, d_scores)?, factor(q.shape))?;
        let d_scores = b.convert(d_scores, dtype)?;
        let dq = b.dot_general(d_scores, k, heads, (&[3], &[1]))?;
        let dk = b.dot_general(d_scores, q, heads, (&[2], &[1]))?;
        [dq, dk, dv].into_iter().map(|x| heads_last(b, x)).collect()
    })
}

/// cuDNN's kernels give [B, H, T, E] that lie in memory as [B, T, H, E], so that
/// the transposition is none.
fn cudnn(operands: &[Shape], backward: bool) -> Result<Graph> {
    let (q, k) = (operands[0], operands[1]);
    let heads_first = |x: Shape| {
        let d = x.dims();
        Shape::new(x.dtype, &[d[0], d[2], d[1], d[3]])
    };
    let mut results = match backward {
        false => vec![
            heads_first(q),
            Shape::new(DType::F32, &[q.dims()[0], q.dims()[2], q.dims()[1]]),
        ],
        true => vec![heads_first(q), heads_first(k), heads_first(k)],
    };
    // The workspace, which the compiler sizes.
    results.push(Shape::new(DType::U8, &[0]));
    let target = match backward {
        false => "__cudnn$fmhaSoftmax",
        true => "__cudnn$fmhaSoftmaxBackward",
    };
    let row_major = |x: &Shape| layout((0..x.rank()).rev());
    let in_place = |x: &Shape| match x.rank() {
        4 => layout([3, 1, 2, 0].into_iter()),
        _ => row_major(x),
    };
    let list = |layouts: Vec<String>| format!("[{}]", layouts.join(", "));
    let attributes = vec![
        ("api_version", "2 : i32".to_owned()),
        ("backend_config", quoted(&backend_config(q, k, backward))),
        (
            "operand_layouts",
            list(operands.iter().map(row_major).collect()),
        ),
        (
            "result_layouts",
            list(results.iter().map(in_place).collect()),
        ),
    ];
    function(operands, |b, args| {
        let mut given = b.custom_call(target, args, &results, attributes)?;
        given.pop();
        let turn = |x: Value| match x.rank() {
            4 => heads_last(b, x),
            _ => Ok(x),
        };
        given.into_iter().map(turn).collect()
    })
}

fn layout(minor_to_major: impl Iterator<Item = usize>) -> String {
    let axes: Vec<String> = minor_to_major.map(|axis| axis.to_string()).collect();
    match &axes[..] {
        [axis] => format!("dense<{axis}> : tensor<1xindex>"),
        _ => format!(
            "dense<[{}]> : tensor<{}xindex>",
            axes.join(", "),
            axes.len()
        ),
    }
}

/// XLA's `GpuBackendConfig` as JSON, with what JAX gives.
fn backend_config(q: Shape, k: Shape, backward: bool) -> String {
    let [batch, asking, heads, _] = [0, 1, 2, 3].map(|axis| q.dims()[axis]);
    // Axes of a product of [B, T, H, E] and such.
    let product = |name: &str, [lhs, rhs]: [usize; 2], lhs_heads: usize| {
        format!(
            r#""{name}": {{"lhs_contracting_dimensions": ["{lhs}"], "rhs_contracting_dimensions": ["{rhs}"], "lhs_batch_dimensions": ["0", "{lhs_heads}"], "rhs_batch_dimensions": ["0", "2"]}}"#
        )
    };
    let products = match backward {
        false => vec![
            product("bmm1_dot_dimension_numbers", [3, 3], 2),
            product("bmm2_dot_dimension_numbers", [3, 1], 1),
        ],
        true => vec![
            product("bmm1_grad_gemm1_dot_dimension_numbers", [2, 1], 1),
            product("bmm1_grad_gemm2_dot_dimension_numbers", [3, 1], 1),
            product("bmm2_grad_gemm1_dot_dimension_numbers", [2, 1], 1),
            product("bmm2_grad_gemm2_dot_dimension_numbers", [3, 3], 2),
        ],
    };
    let algorithm = r#""algorithm": {"algo_id": "0", "math_type": "TENSOR_OP_MATH", "tuning_knobs": {"17": "1", "24": "0"}, "is_cudnn_frontend": true, "workspace_size": "0"}"#;
    let unset = r#""minor_to_major": ["3", "2", "1", "0"], "tiles": [], "element_size_in_bits": "0", "memory_space": "0", "index_primitive_type": "PRIMITIVE_TYPE_INVALID", "pointer_primitive_type": "PRIMITIVE_TYPE_INVALID", "dynamic_shape_metadata_prefix_bytes": "0""#;
    let answering = k.dims()[1];
    let scores = format!(
        r#""intermediate_tensor_shape": {{"element_type": "BF16", "dimensions": ["{batch}", "{heads}", "{asking}", "{answering}"], "tuple_shapes": [], "layout": {{"dim_level_types": [], "dim_unique": [], "dim_ordered": [], {unset}}}, "is_dynamic_dimension": [false, false, false, false]}}"#
    );
    let rest = r#""dropout_rate": 0.0, "seed": 42, "sliding_window_length": 0, "max_seg_per_batch": 1, "is_paged_attention": false"#;
    format!(
        r#"{{"operation_queue_id": "0", "cudnn_fmha_backend_config": {{{algorithm}, "fmha_scale": {:?}, {scores}, "is_flash_attention": true, "mask_type": "NO_MASK", {}, {rest}}}}}"#,
        factor(q),
        products.join(", ")
    )
}

fn emission(kernel: AttentionKernel, operands: &[Shape], backward: bool) -> Emission<'static> {
    let body = match (kernel, backward) {
        (AttentionKernel::Equations, false) => equations(operands),
        (AttentionKernel::Equations, true) => equations_of_gradient(operands),
        (AttentionKernel::Cudnn, _) => cudnn(operands, backward),
    };
    let body = Cow::Owned(body.expect("the body of an attention that was inferred is valid"));
    match kernel {
        AttentionKernel::Equations => Emission::Inline(body),
        AttentionKernel::Cudnn => Emission::Shards(body),
    }
}

/// Operations of so many products of all queries with all keys.
pub fn products(operands: &[Shape], count: u64) -> u64 {
    2 * count * operands[0].len() as u64 * operands[1].dims()[1] as u64
}

impl Operation for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [q, k, v] = arity(operands)?;
        let logarithms = check([q, k, v])?;
        if self.kernel == AttentionKernel::Cudnn && q.dtype != DType::BF16 {
            return Err(format!("of {}s; cuDNN's is of bf16", q.dtype));
        }
        Ok(vec![q, logarithms])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        let [y, logarithms] = [0, 1].map(|i| rule.results[i]);
        if rule.cts[1].is_some() {
            return Err(rule.refuse(self.name(), "the logarithms of its sums have none"));
        }
        let operands = [rule.operands, &[logarithms, rule.ct_or_zero(0)?, y]].concat();
        let kernel = self.kernel;
        let cts = rule.b.push(AttentionGrad { kernel }, &operands)?;
        Ok(cts.into_iter().map(Some).collect())
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        emission(self.kernel, operands, false)
    }

    /// Two products; a softmax, as [`super::Softmax`].
    fn flops(&self, operands: &[Shape], _: &[Shape]) -> u64 {
        let (q, k) = (operands[0], operands[1]);
        let scores = (q.len() / q.dims()[3] * k.dims()[1]) as u64;
        products(operands, 2) + 5 * scores
    }
}

impl Operation for AttentionGrad {
    fn name(&self) -> &'static str {
        "attention_grad"
    }

    fn infer(&self, operands: &[Shape]) -> std::result::Result<Vec<Shape>, String> {
        let [q, k, v, logarithms, ct, y] = arity(operands)?;
        if check([q, k, v])? != logarithms || ct != q || y != q {
            return Err("the last three are not those of the first three".into());
        }
        Ok(vec![q, k, v])
    }

    fn vjp(&self, rule: &Vjp<'_>) -> Result<Vec<Option<Value>>> {
        Err(rule.refuse(self.name(), "it is one itself"))
    }

    fn emit(&self, operands: &[Shape], _: &[Shape]) -> Emission<'_> {
        emission(self.kernel, operands, true)
    }

    /// Five products, of which one is the scores again.
    fn flops(&self, operands: &[Shape], _: &[Shape]) -> u64 {
        products(operands, 5)
    }
}

impl Builder {
    /// Attention of `q` [B, Q, H, E] over `k` and `v` [B, T, H, E]: see
    /// [`Attention`].
    pub fn attention(
        &self,
        kernel: AttentionKernel,
        q: Value,
        k: Value,
        v: Value,
    ) -> Result<Value> {
        Ok(self.push(Attention { kernel }, &[q, k, v])?[0])
    }
}
