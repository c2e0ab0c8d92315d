use super::Shape;

/// Why an op could not be added, differentiated or emitted. Each names the
/// op and the scope path it was added in.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    #[error("{op} in scope '{scope}' refuses operands ({operands}): {reason}")]
    Shape {
        op: String,
        scope: String,
        operands: String,
        reason: String,
    },

    #[error("{op} in scope '{scope}' has no derivative: {reason}")]
    NotDifferentiable {
        op: String,
        scope: String,
        reason: String,
    },

    #[error(
        "the derivative of {op} in scope '{scope}' gave a cotangent of {found} for an operand of {expected}"
    )]
    Cotangent {
        op: String,
        scope: String,
        expected: String,
        found: String,
    },

    #[error("the graph is not valid: {0}")]
    Invalid(String),
}

/// Shapes as they appear in messages: `8x16xf32, f32`.
pub(crate) fn list(shapes: &[Shape]) -> String {
    shapes
        .iter()
        .map(Shape::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
