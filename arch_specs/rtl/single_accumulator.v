// Registers of the operands and the accumulator.
module single_accumulator #(
    parameter BITS = 8,
    parameter WEIGHT_BITS = 8,
    parameter TERM = 17,
    parameter WIDTH = 20,
    parameter SATURATE = 0,
    parameter ZERO_SKIP = 1
) (
    input                        clk,
    input                        reset,
    input                        valid,
    input                        first,
    input      [       BITS-1:0] x,
    input      [WEIGHT_BITS-1:0] w,
    output reg [       BITS-1:0] x_r,
    output reg [WEIGHT_BITS-1:0] w_r,
    input signed [     TERM-1:0] term,
    output reg [      WIDTH-1:0] acc
);
    // Wide enough for the exact sum of both.
    localparam EXACT = (WIDTH > TERM ? WIDTH : TERM) + 1;
    localparam signed [EXACT-1:0] HIGH = {{(EXACT-WIDTH+1){1'b0}}, {(WIDTH-1){1'b1}}};
    localparam signed [EXACT-1:0] LOW = ~HIGH;

    wire load = valid & ~((ZERO_SKIP != 0) & (x == {BITS{1'b0}}));
    reg run, start;
    wire [WIDTH-1:0] base = acc & {WIDTH{~start}};
    wire signed [EXACT-1:0] exact = $signed({{(EXACT-WIDTH){base[WIDTH-1]}}, base})
                                    + $signed({{(EXACT-TERM){term[TERM-1]}}, term});
    wire [WIDTH-1:0] next = (SATURATE == 0) ? exact[WIDTH-1:0] : (exact > HIGH) ? HIGH[WIDTH-1:0] :
                            (exact < LOW) ? LOW[WIDTH-1:0] : exact[WIDTH-1:0];

    always @(posedge clk) begin
        run <= load & ~reset;
        start <= valid & first & ~reset;
        if (load) begin
            x_r <= x;
            w_r <= w;
        end
        if (run) acc <= next;
        else if (start) acc <= {WIDTH{1'b0}};
    end
endmodule
