fn main() {
    xla_moco::cli::main()
}
