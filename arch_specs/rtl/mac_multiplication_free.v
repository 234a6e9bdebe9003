// A core of one operator at one precision, a reference for the reconfigurable core: sign(x) |w| + sign(w) |x|.
// w is a sign (highest bit) and a magnitude.
//
// One operation in a cycle, operands registered, the parameters of mac_core.v; WIDTH is that of the accumulator.
// Written with the operators of the language, independently of the modules of the reconfigurable core.
module mac_multiplication_free #(
    parameter BITS = 8,
    parameter WIDTH = 12,
    parameter SIGNED_X = 0,
    parameter SATURATE = 0,
    parameter ZERO_SKIP = 1
) (
    input               clk,
    input               reset,
    input               valid,
    input               first,
    input  [  BITS-1:0] x,
    input  [  BITS-1:0] w,
    output [WIDTH-1:0] acc
);
    wire [BITS-1:0] x_r, w_r;
    wire negative = (SIGNED_X != 0) & x_r[BITS-1];
    wire signed [BITS+1:0] value = {{2{negative}}, x_r};
    wire signed [BITS+1:0] magnitude = {3'b0, w_r[BITS-2:0] & {(BITS-1){|x_r}}};
    wire signed [BITS+1:0] term = (negative ? -magnitude : magnitude) + (w_r[BITS-1] ^ negative ? -value : value);
    single_accumulator #(
        .BITS(BITS), .WEIGHT_BITS(BITS), .TERM(BITS+2), .WIDTH(WIDTH), .SATURATE(SATURATE), .ZERO_SKIP(ZERO_SKIP)
    ) sums (
        .clk(clk), .reset(reset), .valid(valid), .first(first), .x(x), .w(w), .x_r(x_r), .w_r(w_r),
        .term(term), .acc(acc)
    );
endmodule
