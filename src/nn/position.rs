/// The fixed 2-D sine-cosine position embedding [1 + side^2, dim], row-major;
/// zeros for the class token. With w_i = 10000^(-i / (dim/4)), the token of
/// row r and column c has
/// `[sin r w, cos r w, sin c w, cos c w]`, each of dim/4 values. (The public
/// code names the row "w": its meshgrid is indexed "ij".)
pub fn sincos_2d(side: usize, dim: usize) -> Vec<f32> {
    let quarter = dim / 4;
    let omega = |i: usize| 10000f64.powf(-(i as f64) / quarter as f64);
    let mut table = vec![0.0; dim];
    for row in 0..side {
        for column in 0..side {
            for place in [row, column] {
                let angles = || (0..quarter).map(|i| place as f64 * omega(i));
                table.extend(angles().map(|a| a.sin() as f32));
                table.extend(angles().map(|a| a.cos() as f32));
            }
        }
    }
    table
}
