// A core of one operator at one precision, a reference for the reconfigurable core: x where w is 1, -x where it is 0.
//
// One operation in a cycle, operands registered, the parameters of mac_core.v; WIDTH is that of the accumulator.
// Written with the operators of the language, independently of the modules of the reconfigurable core.
module mac_binary_connect #(
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
    input  [       0:0] w,
    output [WIDTH-1:0] acc
);
    wire [BITS-1:0] x_r;
    wire [0:0] w_r;
    wire signed [BITS+1:0] value = {{2{(SIGNED_X != 0) & x_r[BITS-1]}}, x_r};
    wire signed [BITS+1:0] term = w_r[0] ? value : -value;
    single_accumulator #(
        .BITS(BITS), .WEIGHT_BITS(1), .TERM(BITS+2), .WIDTH(WIDTH), .SATURATE(SATURATE), .ZERO_SKIP(ZERO_SKIP)
    ) sums (
        .clk(clk), .reset(reset), .valid(valid), .first(first), .x(x), .w(w), .x_r(x_r), .w_r(w_r),
        .term(term), .acc(acc)
    );
endmodule
